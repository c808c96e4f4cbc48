"""PyTorch tensors in files and on devices."""
