"""Saves of a training run."""
