"""A training run: its components, and how far it has come."""
