"""Checkpoints of PyTorch states, and the `Checkpointer`."""
