"""Objects that are put aside by a marker, on stores that rename nothing.

The marker of NAME is the object `NAME.aside`, which holds the version that it is about: an object that gets the name
later is not condemned by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ckptfmt._core.storage.base import Entry, Small, Tag, Version

__all__ = ["mark_aside", "without_aside"]

_SUFFIX = ".aside"


def mark_aside(
    read: Callable[[str], Small | None],
    swap: Callable[[str, Tag | None, bytes], Tag | None],
    name: str,
    version: Version,
) -> None:
    """Mark a version of an object as put aside.

    Args:
        read: See `base.Store`.
        swap: See `base.Store`.
        name: Name of the object.
        version: Its version.
    """
    while True:  # another program may mark it at the same time
        found = read(name + _SUFFIX)
        if swap(name + _SUFFIX, None if found is None else found.tag, version.encode()) is not None:
            return


def without_aside(read: Callable[[str], Small | None], entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield what is not put aside, and is no marker.

    Args:
        read: See `base.Store`.
        entries: All objects.
    """
    found = list(entries)
    marked = {entry.name.removesuffix(_SUFFIX) for entry in found if entry.name.endswith(_SUFFIX)}
    for entry in found:
        if entry.name.endswith(_SUFFIX):
            continue
        marker = read(entry.name + _SUFFIX) if entry.name in marked else None
        if marker is None or entry.version is None or marker.content != entry.version.encode():
            yield entry
