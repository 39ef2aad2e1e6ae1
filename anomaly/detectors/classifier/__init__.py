"""A classification network trained on labels: the supervised ceiling beside methods that see normals alone."""
