"""torch modules and the device they run on; no files, no configs, no scores."""
