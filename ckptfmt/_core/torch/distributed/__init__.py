"""Several processes of one job, and modules wrapped for them."""
