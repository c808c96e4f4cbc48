"""Quarantine by marker objects, for stores that cannot rename.

The marker of NAME is the object `NAME.quarantined`. It records the version that it quarantines, so that a later object
of the same name is not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ckptfmt._core.storage.base import Entry, Small, Tag, Version

__all__ = ["mark_quarantined", "without_quarantined"]

_SUFFIX = ".quarantined"


def mark_quarantined(
    read: Callable[[str], Small | None],
    swap: Callable[[str, Tag | None, bytes], Tag | None],
    name: str,
    version: Version,
) -> None:
    """Mark a version of an object as quarantined.

    Args:
        read: See `base.Store`.
        swap: See `base.Store`.
        name: Name of the object.
        version: Version to mark.
    """
    while True:  # another program may mark it at the same time
        found = read(name + _SUFFIX)
        if swap(name + _SUFFIX, None if found is None else found.tag, version.encode()) is not None:
            return


def without_quarantined(read: Callable[[str], Small | None], entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries that are neither quarantined nor markers.

    Args:
        read: See `base.Store`.
        entries: Entries of all objects.
    """
    found = list(entries)
    marked = {entry.name.removesuffix(_SUFFIX) for entry in found if entry.name.endswith(_SUFFIX)}
    for entry in found:
        if entry.name.endswith(_SUFFIX):
            continue
        marker = read(entry.name + _SUFFIX) if entry.name in marked else None
        if marker is None or entry.version is None or marker.content != entry.version.encode():
            yield entry
