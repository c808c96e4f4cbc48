"""Inspection of live objects in memory, without running any of their code."""
