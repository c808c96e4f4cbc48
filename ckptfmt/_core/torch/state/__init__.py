"""The state of live objects, as it is saved."""
