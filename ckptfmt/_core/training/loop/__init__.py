"""The training loop: its position in the run and in the data, and which calls may follow."""
