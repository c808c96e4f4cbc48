"""Readers of other formats, and of native files, each of which makes a `TensorFile`."""
