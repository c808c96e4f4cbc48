"""What one can ask of checkpoint files. Each module computes one frozen report and never prints."""
