"""A training run: its components and progress."""
