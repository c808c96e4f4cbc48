"""Resuming a run: its checkpoint, opened and restored."""
