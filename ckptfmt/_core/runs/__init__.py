"""The checkpoints of a directory: found, put in order, kept and removed."""
