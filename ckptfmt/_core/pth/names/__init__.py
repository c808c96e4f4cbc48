"""The names in pickles, and which of them may stand there."""
