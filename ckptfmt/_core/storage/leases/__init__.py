"""Which process saves a run."""
