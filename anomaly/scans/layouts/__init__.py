"""What public sets and folder names say of the files in them: one recogniser a set, tried in a fixed order."""
