"""Process groups of a job, and module wrappers."""
