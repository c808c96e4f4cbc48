"""Buckets in the memory of this process (`memory://NAME/PREFIX`), for tests and experiments.

They behave like a bucket of an object store, and deliberately unlike a disk: no rename, no random writes, no
directories. An object appears when its upload is complete, each version has a tag, requests can be conditional, and
listings come in pages and in arbitrary order.
"""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptfmt._core.format.digest import digest
from ckptfmt._core.storage.base import Properties, Tag, Version
from ckptfmt._core.storage.buckets.base import ConditionFailedError, StoredObject
from ckptfmt.errors import ChangedError, StorageError

__all__ = ["MemoryBucket", "memory_bucket"]

_PAGE = 100
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


class MemoryBucket:
    """Objects by key (see `buckets.base.Bucket`).

    Args:
        conditions: Whether the bucket honours conditions; some services ignore them.
        page: Number of objects in one page of a listing.

    Attributes:
        properties: Guarantees that the bucket claims.
    """

    def __init__(self, *, conditions: bool = True, page: int = _PAGE) -> None:
        self.properties = _PROPERTIES
        self._conditions = conditions
        self._page = page
        self._objects: dict[str, _Object] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects directly under a prefix, page by page."""
        after: str | None = ""
        while after is not None:
            found, after = self._listed(prefix, after)
            for key, it in found:
                if "/" not in key.removeprefix(prefix):
                    yield _stored(key, it)

    def _listed(self, prefix: str, after: str) -> tuple[Sequence[tuple[str, _Object]], str | None]:
        """Return one page of the objects with a prefix, and the token of the next page; None for the last page."""
        with self._lock:
            order = sorted((digest(key.encode()).hex(), key) for key in self._objects if key.startswith(prefix))
            rest = [(place, key) for place, key in order if place > after]
            chosen = rest[: self._page]
            found = [(key, self._objects[key]) for _, key in chosen]
        return found, chosen[-1][0] if len(rest) > len(chosen) else None

    def head(self, key: str) -> StoredObject | None:
        """Return what is known of an object; None if it does not exist."""
        found = self._objects.get(key)
        return None if found is None else _stored(key, found)

    def get(self, key: str) -> tuple[bytes, Tag] | None:
        """Return the content and the tag of an object; None if it does not exist."""
        found = self._objects.get(key)
        return None if found is None else (found.content, Tag(found.version))

    def tail(self, key: str, nbytes: int) -> tuple[StoredObject, bytes] | None:
        """Return an object and its last bytes; None if it does not exist."""
        found = self._objects.get(key)
        return None if found is None else (_stored(key, found), found.content[max(0, len(found.content) - nbytes) :])

    def read(self, key: str, offset: int, nbytes: int, version: Version) -> bytes:
        """Return a range of bytes."""
        with self._lock:
            self._require(key, version)
            found = self._objects.get(key)
        data = b"" if found is None else found.content[offset : offset + nbytes]
        if len(data) != nbytes:
            raise ConditionFailedError
        return data

    def put(self, key: str, content: bytes, *, if_absent: bool = False, if_match: Tag | None = None) -> Tag:
        """Store an object and return its tag."""
        with self._lock:
            self._require(key, None if if_match is None else Version(if_match), if_absent=if_absent)
            version = Version(f"v{next(self._versions)}")
            self._objects[key] = _Object(content, version)
        return Tag(version)

    def delete(self, key: str, version: Version | None = None) -> None:
        """Remove an object if it exists."""
        with self._lock:
            if key in self._objects:
                self._require(key, version)
            self._objects.pop(key, None)

    def upload(self, key: str, path: str, *, part_bytes: int, replace: bool) -> _Upload:  # noqa: ARG002 - see `buckets.base.Bucket`
        """Begin an upload."""
        return _Upload(self, key, path, replace=replace)

    def _require(self, key: str, if_match: Version | None, *, if_absent: bool = False) -> None:
        if not self._conditions:
            return
        there = self._objects.get(key)
        if (if_absent and there is not None) or (if_match is not None and (there is None or there.version != if_match)):
            raise ConditionFailedError


_buckets: dict[str, MemoryBucket] = {}


def memory_bucket(name: str) -> MemoryBucket:
    """Return the bucket of a name, the same one throughout this process."""
    return _buckets.setdefault(name, MemoryBucket())


class _Upload:
    """An upload in parts (see `upload.Upload`)."""

    def __init__(self, objects: MemoryBucket, key: str, path: str, *, replace: bool) -> None:
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
        except ConditionFailedError:
            error = StorageError(f"{self._path}: another program has just published under this name; save again")
            error.errno = errno.EEXIST
            raise error from None

    def read_back(self, nbytes: int) -> tuple[int, bytes]:
        """Return the length of the published object and its last bytes."""
        found = self._bucket.tail(self._key, nbytes)
        if found is None:
            raise ChangedError(f"{self._path}: the object has been removed; save again")
        return found[0].nbytes, found[1]

    def abort(self) -> None:
        """Discard the parts."""
        self._parts.clear()


def _stored(key: str, found: _Object) -> StoredObject:
    return StoredObject(key, len(found.content), found.version)
