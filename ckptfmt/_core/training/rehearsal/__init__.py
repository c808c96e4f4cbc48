"""Rehearsals: short runs of a training program in a scratch directory, recorded step by step and compared."""
