"""What turns scans and their normal twins into scores and maps: named terms, each with its map, and their sum."""
