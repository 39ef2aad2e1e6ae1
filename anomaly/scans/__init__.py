"""Files in: what is in a folder, how its files become pixels, and how normals are drawn patient by patient."""
