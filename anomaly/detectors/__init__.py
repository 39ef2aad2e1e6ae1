"""One interface (`base.Detector`), one method per file. A score never depends on the rest of the folder."""
