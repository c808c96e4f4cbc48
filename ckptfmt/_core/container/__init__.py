"""One checkpoint file: its components and trees, read and written."""
