"""Restoring saved states into live objects."""
