"""Resuming a run: which checkpoint, on all ranks."""
