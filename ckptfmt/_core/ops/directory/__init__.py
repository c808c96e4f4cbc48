"""Reports of a directory of checkpoints."""
