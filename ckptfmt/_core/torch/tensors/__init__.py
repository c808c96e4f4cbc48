"""PyTorch's tensors, in files and on devices."""
