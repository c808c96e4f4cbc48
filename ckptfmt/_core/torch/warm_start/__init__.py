"""Warm start: a new run with the weights of an earlier one."""
