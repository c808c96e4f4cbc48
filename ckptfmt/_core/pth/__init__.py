"""Checkpoints of PyTorch's own formats, read without PyTorch and without running anything in them."""
