"""Where the layers meet: each command of the tool is one function here, usable from Python too."""
