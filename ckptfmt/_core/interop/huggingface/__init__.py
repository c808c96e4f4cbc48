"""Directories that are one checkpoint, as Hugging Face's libraries write them."""
