"""Scan -> Prepared: one frozen preparation for every scan of a model, and the way back for every map."""
