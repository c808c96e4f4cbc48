"""Choice of the checkpoint that a run resumes from, on all ranks."""
