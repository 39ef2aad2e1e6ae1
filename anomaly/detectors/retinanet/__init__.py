"""RetinaNet: boxes learnt from boxes."""
