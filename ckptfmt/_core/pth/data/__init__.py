"""Bytes of PyTorch's files: zip members, storages, and tensors as views of them."""
