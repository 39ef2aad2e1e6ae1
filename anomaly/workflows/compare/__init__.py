"""`anomaly compare`: recipes side by side on one split, and what their differences are worth."""
