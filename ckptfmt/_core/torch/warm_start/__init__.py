"""A new run started from the weights of an earlier one."""
