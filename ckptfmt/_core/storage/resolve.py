"""From a path or URL to its store.

`runs/digits` is a directory, and `file:///runs/digits` is the same directory by its URL. All other URLs are those of
buckets, of which `buckets.doors` knows the libraries; `memory://NAME/PREFIX` is in the memory of this process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ckptfmt._core.storage.base import Entry, Guard, Publication, Source, Store, Version
from ckptfmt._core.storage.leases.base import Leases
from ckptfmt._core.storage.local import paths
from ckptfmt._core.storage.local.source import open_source as open_file
from ckptfmt._core.storage.local.store import LocalStore
from ckptfmt.errors import StorageError, UsageError

__all__ = [
    "absolute",
    "create",
    "directory_of",
    "fixed_directory",
    "is_directory",
    "is_gone",
    "is_url",
    "join",
    "leases_in",
    "locate",
    "look",
    "make_directory",
    "name_of",
    "open_source",
    "same_object",
    "store_for",
    "use_store_options",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # two letters at least: C: is a drive
_COLLAPSED = re.compile(r"(s3a?|gs|az|abfss?|https?|hf|memory|file):/[^/]")


def is_url(location: str | os.PathLike[str]) -> bool:
    """Return whether a location is a URL other than that of a local file."""
    return _local(location) is None


def store_for(location: str | os.PathLike[str]) -> Store:
    """Return the store at a location.

    Raises:
        StorageError: No store supports URLs of this kind, or the name is impossible.
    """
    local = _local(location)
    return _store_at(str(location), str(location)) if local is None else LocalStore(local)


def use_store_options(location: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
    """Use options for everything in the bucket of a URL, from now on in this process (see `buckets.doors`).

    Raises:
        UsageError: The location is a local path.
    """
    from ckptfmt._core.storage.buckets.doors import set_store_options

    if not is_url(location):
        raise UsageError(f"store_options are for the URL of a store, and {location} is a local path; leave them out")
    set_store_options(str(location), options)


def locate(location: str | os.PathLike[str]) -> tuple[Store, str]:
    """Return the store of an object and the name of the object.

    Raises:
        StorageError: No store supports URLs of this kind, or the name is impossible.
    """
    local = _local(location)
    if local is not None:
        path = Path(local)
        return LocalStore(path.parent), path.name
    around, _, name = str(location).rpartition("/")
    if not name or around.endswith(":/"):
        raise StorageError(f"{location}: the URL names no object; append /NAME")
    return _store_at(around, str(location)), name


def leases_in(location: str | os.PathLike[str]) -> Leases:
    """Return the leases of the runs at a location (spec, annex B).

    Raises:
        StorageError: No store supports URLs of this kind, or the name is impossible.
    """
    local = _local(location)
    if local is None:
        from ckptfmt._core.storage.leases.objects import ObjectLeases

        return ObjectLeases(store_for(location))
    from ckptfmt._core.storage.local.file_leases import FileLeases  # most programs save no run

    return FileLeases(local)


def absolute(location: str | os.PathLike[str]) -> str:
    """Return a path that stays the same when the working directory changes; of a URL, the URL.

    Raises:
        UsageError: The location is neither a path nor a URL.
        StorageError: No file can have the name, or the working directory is gone.
    """
    local = _local(location)
    return str(location) if local is None else paths.absolute_path(local)


def fixed_directory(location: str | os.PathLike[str]) -> str:
    """Return the absolute path of a directory without symbolic links (see `paths.fixed_directory`); of a URL, the URL.

    Raises:
        UsageError: The location is neither a path nor a URL.
        StorageError: No store supports URLs of this kind, or the name is impossible.
    """
    local = _local(location)
    if local is not None:
        return paths.fixed_directory(local)
    return store_for(str(location).rstrip("/")).location


def make_directory(location: str) -> None:
    """Create a directory and those above it, unless they exist. Other stores need no directories.

    Raises:
        StorageError: The directory cannot be created.
    """
    local = _local(location)
    if local is not None:
        from ckptfmt._core.storage.local.publication.atomic_directory import make_directory

        make_directory(local)


def open_source(location: str | os.PathLike[str], version: Version | None = None) -> Source:
    """Open a file, or an object in a store, for reading.

    Args:
        location: Path or URL.
        version: The version to read; None: the current one.

    Raises:
        ChangedError: The current version is another one.
        StorageError: The object does not exist or cannot be read, or no store supports the URL.
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
    """Return a new file, or a new object in a store, that appears completely or not at all (see `base.Store.create`).

    Raises:
        StorageError: No store supports the URL, or the name is impossible.
    """
    local = _local(location)
    if local is not None:
        from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile  # most programs write nothing

        return AtomicFile(local, expected_bytes=expected_bytes, replace=replace, guard=guard)
    store, name = locate(location)
    return store.create(name, expected_bytes=expected_bytes, replace=replace, guard=guard)


def join(location: str | os.PathLike[str], name: str) -> str:
    """Return the path or URL of an object in the store at a location."""
    return store_for(location).path(name)


def name_of(location: str) -> str:
    """Return the name of an object."""
    local = _local(location)
    return location.rpartition("/")[2] if local is None else Path(local).name


def directory_of(location: str) -> str:
    """Return the location of the store of an object."""
    local = _local(location)
    return location.rpartition("/")[0] if local is None else str(Path(local).parent)


def look(location: str | os.PathLike[str]) -> Entry | None:
    """Return the entry of an object; None if it does not exist, or cannot be examined."""
    try:
        store, name = locate(location)
        return store.look(name)
    except StorageError:
        return None


def same_object(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether two locations are the same object or directory. False also means unknown."""
    found, beside = look(one), look(other)
    if found is not None and beside is not None:
        return found.content_id == beside.content_id
    here, there = _local(one), _local(other)
    return here is not None and there is not None and paths.same_file(here, there)


def is_gone(location: str) -> bool:
    """Return whether a name is free: not even a dangling link has it. False also means unknown."""
    local = _local(location)
    if local is not None:
        return paths.is_gone(local)
    try:
        store, name = locate(location)
        return store.look(name) is None
    except StorageError:
        return False


def is_directory(location: str | os.PathLike[str]) -> bool:
    """Return whether a location is a directory, or a prefix with objects. False also means unknown."""
    local = _local(location)
    if local is not None:
        return paths.is_directory(local)
    try:
        return next(iter(store_for(location).list()), None) is not None
    except StorageError:
        return False


def _store_at(url: str, asked: str) -> Store:
    """Return the store at a URL; errors name the whole URL that was asked for."""
    from ckptfmt._core.storage.buckets.doors import bucket_at, split_url  # most programs use local files only
    from ckptfmt._core.storage.buckets.store import BucketStore

    root, prefix = split_url(url)
    return BucketStore(bucket_at(root, asked), prefix, url)


def _local(location: str | os.PathLike[str]) -> str | None:
    """Return a path, or the path of a `file` URL; None for other URLs.

    Raises:
        UsageError: The location is neither a path nor a URL.
        StorageError: The URL names a file on another machine.
    """
    text = paths.path_text(location)
    scheme = _SCHEME.match(text)
    if scheme is None:
        if isinstance(location, os.PathLike) and _COLLAPSED.match(text):
            raise UsageError(f"{text}: a URL that pathlib.Path has changed; pass it as a str")
        return text
    return _path_of(text) if scheme[1].lower() == "file" else None


def _path_of(url: str) -> str:
    """Return the path of a `file` URL.

    Raises:
        StorageError: The file is on another machine, or the path is relative.
    """
    from urllib.parse import unquote, urlsplit  # few programs need them, and they take milliseconds

    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise StorageError(f"{url}: the file is not on this machine; use file:///PATH")
    return unquote(parts.path)
