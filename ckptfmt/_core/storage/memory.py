"""Stores in the memory of this process (`memory://NAME/PREFIX`), for tests and experiments.

They behave like a bucket of an object store, and deliberately unlike a disk: no rename, no random writes, no
directories. An object appears when its upload is complete, each version has a tag, requests can be conditional, and
listings come in pages and in arbitrary order.
"""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import Self

from ckptfmt._core.format.digest import digest
from ckptfmt._core.storage.base import Entry, Guard, Properties, Small, Tag, Unfinished, Version
from ckptfmt._core.storage.markers import mark_quarantined, without_quarantined
from ckptfmt._core.storage.object_lock import object_lock
from ckptfmt._core.storage.upload import UploadedFile
from ckptfmt.errors import ChangedError, StorageError

__all__ = ["Bucket", "MemoryStore", "bucket"]

_PAGE = 100
_LOCK, _PRUNE_LOCK = ".ckptfmt.lock", ".ckptfmt.prune.lock"
_LOCK_SECONDS = 60.0
_STALE_SECONDS, _PRUNE_STALE_SECONDS = 30.0, 600.0  # the first one shorter than the wait, so that a kill is overcome
_PROPERTIES = Properties(
    create_if_absent=True,
    compare_and_swap=True,
    atomic_replace=True,
    random_access_writes=False,
    exclusive_publication=False,  # as of common object stores, whose uploads in parts have no conditions
    local_reads=False,
    connections=8,
)


@dataclass(frozen=True)
class _Object:
    content: bytes
    version: Version


class _ConditionError(Exception):
    """The condition of a request failed."""


class Bucket:
    """Objects by key, with the requests of an object store. Each request is atomic.

    Args:
        conditions: Whether the bucket honours conditions; some services ignore them.
        page: Number of objects in one page of a listing.
    """

    def __init__(self, *, conditions: bool = True, page: int = _PAGE) -> None:
        self._conditions = conditions
        self._page = page
        self._objects: dict[str, _Object] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def put(self, key: str, content: bytes, *, if_absent: bool = False, if_match: Version | None = None) -> Version:
        """Store an object and return its version.

        Args:
            key: Key of the object.
            content: Bytes of the object.
            if_absent: Require that the object does not exist.
            if_match: Required current version; None: any.
        """
        with self._lock:
            self._require(key, if_match, if_absent=if_absent)
            version = Version(f"v{next(self._versions)}")
            self._objects[key] = _Object(content, version)
        return version

    def get(self, key: str, *, if_match: Version | None = None) -> _Object:
        """Return an object.

        Raises:
            KeyError: The object does not exist.
        """
        with self._lock:
            self._require(key, if_match)
            return self._objects[key]

    def delete(self, key: str, *, if_match: Version | None = None) -> None:
        """Remove an object if it exists."""
        with self._lock:
            if key in self._objects:
                self._require(key, if_match)
            self._objects.pop(key, None)

    def page(self, prefix: str, after: str) -> tuple[list[tuple[str, _Object]], str | None]:
        """Return one page of the objects with a prefix, and the token of the next page; None for the last page."""
        with self._lock:
            order = sorted((digest(key.encode()).hex(), key) for key in self._objects if key.startswith(prefix))
            rest = [(place, key) for place, key in order if place > after]
            chosen = rest[: self._page]
            found = [(key, self._objects[key]) for _, key in chosen]
        return found, chosen[-1][0] if len(rest) > len(chosen) else None

    def _require(self, key: str, if_match: Version | None, *, if_absent: bool = False) -> None:
        if not self._conditions:
            return
        there = self._objects.get(key)
        if (if_absent and there is not None) or (if_match is not None and (there is None or there.version != if_match)):
            raise _ConditionError


_buckets: dict[str, Bucket] = {}


def bucket(name: str) -> Bucket:
    """Return the bucket of a name, the same one throughout this process."""
    return _buckets.setdefault(name, Bucket())


class MemoryStore:
    """The objects directly under a prefix of a bucket (see `base.Store`).

    Args:
        objects: The bucket.
        prefix: The prefix without a trailing slash; empty: the top of the bucket.
        location: URL as the user gave it.

    Attributes:
        location: URL as the user gave it.
        properties: Guarantees that the store claims.
    """

    def __init__(self, objects: Bucket, prefix: str, location: str) -> None:
        self.location = location
        self.properties = _PROPERTIES
        self._bucket = objects
        self._prefix = f"{prefix}/" if prefix else ""

    def path(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self.location.rstrip('/')}/{name}"

    def list(self) -> Iterator[Entry]:
        """Yield the objects that are not quarantined, page by page."""
        return without_quarantined(self.read, self._entries())

    def _entries(self) -> Iterator[Entry]:
        after: str | None = ""
        while after is not None:
            found, after = self._bucket.page(self._prefix, after)
            for key, it in found:
                name = key.removeprefix(self._prefix)
                if "/" not in name:
                    yield self._entry(name, it)

    def look(self, name: str) -> Entry | None:
        """Return the entry of an object; None if it does not exist."""
        try:
            return self._entry(name, self._bucket.get(self._key(name)))
        except KeyError:
            return None

    def open(self, name: str, version: Version | None = None) -> MemorySource:
        """Open an object. Reads are pinned to one version."""
        path = self.path(name)
        try:
            found = self._bucket.get(self._key(name), if_match=version)
        except KeyError:
            error = StorageError(f"{path}: no such object; check the URL")
            error.errno = errno.ENOENT
            raise error from None
        except _ConditionError:
            raise _changed(path) from None
        return MemorySource(path, self._bucket, self._key(name), found)

    def create(
        self,
        name: str,
        *,
        expected_bytes: int | None = None,  # noqa: ARG002 - memory is not reserved
        replace: bool = False,
        guard: Guard = nullcontext,
    ) -> UploadedFile:
        """Return a new object, which appears when its upload is complete."""
        file = UploadedFile(self.path(name), lambda: begin(), guard)

        def begin() -> _Upload:
            free = name if replace else self._free_name(name)
            file.path = self.path(free)
            return _Upload(self._bucket, self._key(free), file.path, replace=replace)

        return file

    def remove(self, name: str, version: Version | None = None) -> None:
        """Remove an object if it exists and has the version."""
        try:
            self._bucket.delete(self._key(name), if_match=version)
        except _ConditionError:
            raise _changed(self.path(name)) from None

    def read(self, name: str) -> Small | None:
        """Return a small object; None if it does not exist."""
        try:
            found = self._bucket.get(self._key(name))
        except KeyError:
            return None
        return Small(found.content, Tag(found.version))

    def swap(
        self,
        name: str,
        expected: Tag | None,
        content: bytes,
        *,
        durably: bool = True,  # noqa: ARG002 - nothing here is more durable than the process
    ) -> Tag | None:
        """Replace the content of a small object unless it has changed (see `base.Store`)."""
        condition = None if expected is None else Version(expected)
        try:
            return Tag(self._bucket.put(self._key(name), content, if_absent=expected is None, if_match=condition))
        except _ConditionError:
            return None

    def quarantine(self, name: str, version: Version) -> str:
        """Mark a version of an object as quarantined; its bytes stay under its name."""
        found = self.look(name)
        if found is None or found.version != version:
            raise _changed(self.path(name))
        mark_quarantined(self.read, self.swap, name, version)
        return self.path(name)

    def make_durable(self, name: str) -> None:
        """Check that an object exists: a visible object is as durable as the store."""
        self.open(name).close()

    def lock(self, *, wait_seconds: float = _LOCK_SECONDS) -> AbstractContextManager[None]:
        """Hold the lock of the store, for moments."""
        busy = f"{self.path(_LOCK)}: another process has held this lock for {wait_seconds:g} s; end it"
        return object_lock(self, _LOCK, busy, wait_seconds=wait_seconds, stale_seconds=_STALE_SECONDS, again=True)

    def prune_lock(self, *, wait_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Hold the lock for applying a retention policy."""
        busy = f"{self.location}: another process is removing checkpoints here; try again when it has ended"
        return object_lock(self, _PRUNE_LOCK, busy, wait_seconds=wait_seconds, stale_seconds=_PRUNE_STALE_SECONDS)

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return nothing: unfinished uploads are invisible."""
        return ()

    def clean(self, name: str | None = None) -> tuple[str, ...]:  # noqa: ARG002 - there is nothing to choose from
        """Remove nothing: an upload ends with its writer."""
        return ()

    def is_being_written(self, name: str) -> bool:  # noqa: ARG002 - see `base.Store`
        """Return False: objects never change in place."""
        return False

    def forget_cached(self, name: str) -> None:
        """Do nothing: nothing is cached."""

    def _entry(self, name: str, found: _Object) -> Entry:
        return Entry(name, len(found.content), found.version, self.path(name))

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _free_name(self, name: str) -> str:
        path = PurePosixPath(name)
        for number in itertools.count(1):
            free = name if number == 1 else f"{path.stem}-{number}{path.suffix}"
            if self.look(free) is None:
                return free
        raise AssertionError("there are names without end")


class MemorySource:
    """An object that is open for reading. A context manager that closes it.

    Attributes:
        path: URL of the object.
        size: Length in bytes.
    """

    def __init__(self, path: str, objects: Bucket, key: str, found: _Object) -> None:
        self.path = path
        self.size = len(found.content)
        self._bucket = objects
        self._key = key
        self._version = found.version
        self._closed = False

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes from `offset`."""
        if self._closed or offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise ValueError(f"{self.path}: {nbytes} bytes at offset {offset} are not inside its {self.size} bytes")
        try:
            content = self._bucket.get(self._key, if_match=self._version).content
        except (KeyError, _ConditionError):
            raise _changed(self.path) from None
        data = content[offset : offset + nbytes]
        if len(data) != nbytes:
            raise _changed(self.path)
        return data

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` with the bytes from `offset`."""
        view = buffer.cast("B")
        view[:] = self.read(offset, view.nbytes)

    def read_cached(self, offset: int, buffer: memoryview) -> int:  # noqa: ARG002 - see `base.Source`
        """Return 0: it stands for a store that is far away."""
        return 0

    def view(self, offset: int, nbytes: int) -> memoryview | None:  # noqa: ARG002 - see `base.Source`
        """Return None: objects are not mapped."""
        return None

    def private_view(self, offset: int, nbytes: int) -> memoryview | None:  # noqa: ARG002 - see `base.Source`
        """Return None: objects are not mapped."""
        return None

    def close(self) -> None:
        """Close the object; a second call does nothing."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Upload:
    """An upload in parts (see `upload.Upload`)."""

    def __init__(self, objects: Bucket, key: str, path: str, *, replace: bool) -> None:
        self._bucket = objects
        self._key = key
        self._path = path
        self._replace = replace
        self._parts: list[bytes] = []

    def append(self, part: bytes) -> None:
        """Add the next part."""
        self._parts.append(part)

    def complete(self) -> None:
        """Make the object visible."""
        try:
            self._bucket.put(self._key, b"".join(self._parts), if_absent=not self._replace)
        except _ConditionError:
            error = StorageError(f"{self._path}: another program has just published under this name; save again")
            error.errno = errno.EEXIST
            raise error from None

    def read_back(self, nbytes: int) -> tuple[int, bytes]:
        """Return the length of the published object and its last bytes."""
        try:
            content = self._bucket.get(self._key).content
        except KeyError:
            raise _changed(self._path) from None
        return len(content), content[len(content) - nbytes :] if nbytes <= len(content) else content

    def abort(self) -> None:
        """Discard the parts."""
        self._parts.clear()


def _changed(path: str) -> ChangedError:
    return ChangedError(f"{path}: the object has been replaced or removed; open it again")
