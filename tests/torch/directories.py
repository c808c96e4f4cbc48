"""What is in the directory of a run."""

from __future__ import annotations

from pathlib import Path


def names(directory: Path) -> list[str]:
    """Return the names in a directory without those of leases and locks, which stay there."""
    return sorted(path.name for path in directory.iterdir() if not path.name.endswith((".lease", ".lock")))
