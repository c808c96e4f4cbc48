"""What is in the directory of a run, or in another store."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.resolve import is_url, locate, store_for
from ckptfmt.testing.stores import content_of, publish

_SAVE_ID = re.compile(r"\.[0-9a-f]{8}(?=\.ckptfmt)")


def names(place: str | os.PathLike[str]) -> list[str]:
    """Return the names in a place, without save ids, and without those of leases and locks, which stay there."""
    if is_url(place):
        found = [entry.name for entry in store_for(place).list()]
    else:
        found = [path.name for path in Path(place).iterdir()]
    return sorted(_SAVE_ID.sub("", name) for name in found if not name.endswith((".lease", ".lock")))


def steps(place: str | os.PathLike[str]) -> list[int | None]:
    """Return the steps of the checkpoints in a place."""
    return sorted((file.metadata.step for file in scan(place)), key=lambda step: -1 if step is None else step)


def damage(path: str | os.PathLike[str], offset: int = 13000) -> None:
    """Change one bit of a file or object."""
    store, name = locate(path)
    content = bytearray(content_of(store, name))
    content[offset] ^= 1
    if is_url(path):
        publish(store, name, bytes(content), replace=True)
    else:
        Path(path).write_bytes(content)
