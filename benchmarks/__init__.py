"""What saving and restoring costs, side by side with others and with what the machine itself allows."""
