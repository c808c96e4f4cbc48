"""Checkpoints written in the formats of others."""
