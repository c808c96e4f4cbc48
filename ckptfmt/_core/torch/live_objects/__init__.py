"""What live objects keep in memory, seen without running any code of theirs."""
