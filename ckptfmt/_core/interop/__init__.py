"""Files of other formats as files of tensors. Nothing in them is run."""
