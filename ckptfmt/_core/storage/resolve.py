"""Which store a path or URL leads to.

`runs/digits` is a directory, `file:///runs/digits` the same by its URL, `memory://NAME/PREFIX` lies in the memory of
this process. A new kind of store is entered here.
"""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path

from ckptfmt._core.storage.base import Entry, Guard, Publication, Source, Store, Version
from ckptfmt._core.storage.local import paths
from ckptfmt._core.storage.local.source import open_source as open_file
from ckptfmt._core.storage.local.store import LocalStore
from ckptfmt.errors import StorageError

__all__ = [
    "create",
    "directory_of",
    "is_directory",
    "is_gone",
    "is_url",
    "join",
    "locate",
    "look",
    "name_of",
    "open_source",
    "same_object",
    "store_for",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # two letters at least: C: is a drive
_SUPPORTED = "give a local path, file:///PATH or memory://NAME/PREFIX"


def is_url(location: str | os.PathLike[str]) -> bool:
    """Say whether a location is a URL, other than that of a file."""
    return _local(location) is None


def store_for(location: str | os.PathLike[str]) -> Store:
    """Return the store that is at a location.

    Raises:
        StorageError: There is no store for URLs of this kind, or no directory can have this name.
    """
    local = _local(location)
    return _store_at(str(location), str(location)) if local is None else LocalStore(local)


def locate(location: str | os.PathLike[str]) -> tuple[Store, str]:
    """Return the store that an object is in, and the name of the object.

    Raises:
        StorageError: There is no store for URLs of this kind, or no object can have this name.
    """
    local = _local(location)
    if local is not None:
        path = Path(local)
        return LocalStore(path.parent), path.name
    around, _, name = str(location).rpartition("/")
    if not name or around.endswith(":/"):
        raise StorageError(f"{location}: names no object; give the name of one in it")
    return _store_at(around, str(location)), name


def open_source(location: str | os.PathLike[str], version: Version | None = None) -> Source:
    """Open a file, or an object in a store, for reading.

    Args:
        location: Its path or URL.
        version: The version to read; None: the present one.

    Raises:
        ChangedError: There is another version.
        StorageError: It is not there, cannot be read, or is in no store that is known.
    """
    local = _local(location)
    if version is None and local is not None:
        return open_file(local)  # the path stays as it was named
    store, name = locate(location)
    return store.open(name, version)


def create(
    location: str | os.PathLike[str],
    *,
    expected_bytes: int | None = None,
    replace: bool = True,
    guard: Guard = nullcontext,
) -> Publication:
    """Return a new file, or a new object in a store, that appears whole or not at all (see `base.Store.create`).

    Raises:
        StorageError: It is in no store that is known, or nothing can have this name.
    """
    local = _local(location)
    if local is not None:
        from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile  # most programs write nothing

        return AtomicFile(local, expected_bytes=expected_bytes, replace=replace, guard=guard)
    store, name = locate(location)
    return store.create(name, expected_bytes=expected_bytes, replace=replace, guard=guard)


def join(location: str | os.PathLike[str], name: str) -> str:
    """Return what to call an object in a store."""
    return store_for(location).path(name)


def name_of(location: str) -> str:
    """Return the name of an object."""
    local = _local(location)
    return location.rpartition("/")[2] if local is None else Path(local).name


def directory_of(location: str) -> str:
    """Return the location of the store that an object is in."""
    local = _local(location)
    return location.rpartition("/")[0] if local is None else str(Path(local).parent)


def look(location: str | os.PathLike[str]) -> Entry | None:
    """Return what there is to tell of an object; None if there is none, or it cannot be told."""
    try:
        store, name = locate(location)
        return store.look(name)
    except StorageError:
        return None


def same_object(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Say whether two locations lead to the same object, or the same directory. If that cannot be known: no."""
    found, beside = look(one), look(other)
    if found is not None and beside is not None:
        return found.content_id == beside.content_id
    here, there = _local(one), _local(other)
    return here is not None and there is not None and paths.same_file(here, there)


def is_gone(location: str) -> bool:
    """Say whether nothing has a name, not even a link that leads nowhere. If that cannot be known: no."""
    local = _local(location)
    if local is not None:
        return paths.is_gone(local)
    try:
        store, name = locate(location)
        return store.look(name) is None
    except StorageError:
        return False


def is_directory(location: str | os.PathLike[str]) -> bool:
    """Say whether a location is a directory, or that of objects in a store. If that cannot be known: no."""
    local = _local(location)
    if local is not None:
        return paths.is_directory(local)
    try:
        return next(iter(store_for(location).list()), None) is not None
    except StorageError:
        return False


def _store_at(url: str, asked: str) -> Store:
    """Return the store at a URL, which is a part of what was asked for."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "memory":
        from ckptfmt._core.storage.memory import MemoryStore, bucket

        name, _, prefix = rest.partition("/")
        return MemoryStore(bucket(name), prefix.strip("/"), url)
    raise StorageError(f"{asked}: there is no store for {scheme}://; {_SUPPORTED}")


def _local(location: str | os.PathLike[str]) -> str | None:
    """Return a path, or the path that a `file` URL stands for; None for other URLs.

    Raises:
        UsageError: It is neither path nor URL.
        StorageError: It is the URL of a file on another machine.
    """
    text = paths.path_text(location)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return text
    return _path_of(text) if scheme[1].lower() == "file" else None


def _path_of(url: str) -> str:
    """Return the path that a `file` URL stands for.

    Raises:
        StorageError: It is on another machine, or relative.
    """
    from urllib.parse import unquote, urlsplit  # few programs need them, and they take milliseconds

    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise StorageError(f"{url}: is not on this machine; give file:///PATH")
    return unquote(parts.path)
