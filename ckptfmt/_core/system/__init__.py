"""The process and its machine: threads, forks, the garbage collector."""
