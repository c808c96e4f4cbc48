"""Loaded states put into live objects."""
