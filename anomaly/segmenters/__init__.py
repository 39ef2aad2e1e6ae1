"""Networks that say of every pixel whether it belongs: to the lungs, to a lesion."""
