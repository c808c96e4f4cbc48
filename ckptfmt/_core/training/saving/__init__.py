"""Saving a run: when, from which copy, by which thread, and what came of it."""
