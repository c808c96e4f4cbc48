"""The forms in which PyTorch has written files: zip archives, streams, tar archives, TorchScript."""
