"""Rehearsals of a training program: run, killed, resumed, and compared with the uninterrupted run."""
