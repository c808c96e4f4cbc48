"""Stores that are buckets of an object store, or behave like one."""
