"""The part of a rehearsal that runs in the program: what it sees of live objects, and when it saves and ends."""
