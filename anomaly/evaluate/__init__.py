"""How well scores and maps separate abnormal from normal films, with intervals and trivial baselines beside them."""
