"""What one checkpoint holds."""
