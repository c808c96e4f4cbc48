"""Going on with a run: which checkpoint, and everything restored from it."""
