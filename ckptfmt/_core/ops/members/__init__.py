"""The members of a checkpoint, taken out, put in and left out."""
