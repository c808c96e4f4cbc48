"""Saves of a run: schedule, copy of the state, background thread, outcomes."""
