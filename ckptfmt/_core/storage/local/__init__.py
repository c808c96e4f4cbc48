"""Files of a local directory."""
