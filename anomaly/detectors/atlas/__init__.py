"""The statistical atlas of the normal chest: `looks` of a film, its low-rank `twin`, the `terms`, the `detector`."""
