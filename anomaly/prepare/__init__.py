"""Scan -> Prepared: every scan of a model goes through the same frozen preparation, and every map finds its way back."""
