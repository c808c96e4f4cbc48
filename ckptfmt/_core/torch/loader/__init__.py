"""Position in the data: passes over a loader, and how to resume within one."""
