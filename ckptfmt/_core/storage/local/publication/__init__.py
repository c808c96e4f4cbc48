"""Files and directories published as a whole or not at all."""
