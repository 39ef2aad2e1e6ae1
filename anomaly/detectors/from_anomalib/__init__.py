"""Any image model of anomalib, through its own Lightning module: our films in, its raw scores out."""
