"""Trees of a training state to structure and tensors, and back; knows no framework (spec 11)."""
