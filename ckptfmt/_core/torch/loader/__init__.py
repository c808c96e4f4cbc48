"""The place in the data: passes over a loader, and how to come back into one."""
