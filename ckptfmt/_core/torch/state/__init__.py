"""State of live objects, in the form that is saved."""
