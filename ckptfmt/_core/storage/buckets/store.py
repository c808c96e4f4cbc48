"""The store that is one prefix of a bucket, whatever service keeps it."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePosixPath

from ckptfmt._core.storage.base import Entry, Guard, Small, Tag, Unfinished, Version
from ckptfmt._core.storage.buckets.base import Bucket, ConditionFailedError, StoredObject
from ckptfmt._core.storage.buckets.source import TAIL_BYTES, BucketSource, changed
from ckptfmt._core.storage.markers import mark_quarantined, without_quarantined
from ckptfmt._core.storage.object_lock import object_lock
from ckptfmt._core.storage.upload import Upload, UploadedFile, part_bytes_for
from ckptfmt.errors import StorageError

__all__ = ["BucketStore"]

_LOCK, _PRUNE_LOCK = ".ckptfmt.lock", ".ckptfmt.prune.lock"
_LOCK_SECONDS = 60.0
_STALE_SECONDS, _PRUNE_STALE_SECONDS = 30.0, 600.0  # the first one shorter than the wait, so that a kill is overcome


class BucketStore:
    """The objects directly under a prefix of a bucket (see `base.Store`).

    Args:
        bucket: The bucket.
        prefix: The prefix without a trailing slash; empty: the top of the bucket.
        location: URL as the user gave it.

    Attributes:
        location: URL as the user gave it.
        properties: Guarantees that the store claims.
    """

    def __init__(self, bucket: Bucket, prefix: str, location: str) -> None:
        self.location = location
        self.properties = bucket.properties
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def path(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self.location.rstrip('/')}/{name}"

    def list(self) -> Iterator[Entry]:
        """Yield the objects that are not quarantined."""
        return without_quarantined(self.read, map(self._entry, self._bucket.list(self._prefix)))

    def look(self, name: str) -> Entry | None:
        """Return the entry of an object; None if it does not exist."""
        found = self._bucket.head(self._key(name))
        return None if found is None else self._entry(found)

    def open(self, name: str, version: Version | None = None) -> BucketSource:
        """Open an object. Reads are pinned to one version."""
        path = self.path(name)
        found = self._bucket.tail(self._key(name), TAIL_BYTES)
        if found is None:
            error = StorageError(f"{path}: no such object; check the URL")
            error.errno = errno.ENOENT
            raise error
        facts, tail = found
        if version is not None and facts.version != version:
            raise changed(path)
        return BucketSource(path, self._bucket, facts, tail)

    def create(
        self, name: str, *, expected_bytes: int | None = None, replace: bool = False, guard: Guard = nullcontext
    ) -> UploadedFile:
        """Return a new object, which appears when its upload is complete."""
        part_bytes = part_bytes_for(expected_bytes)
        file = UploadedFile(self.path(name), lambda: begin(), guard, part_bytes=part_bytes)

        def begin() -> Upload:
            free = name if replace else self._free_name(name)
            file.path = self.path(free)
            return self._bucket.upload(self._key(free), file.path, part_bytes=part_bytes, replace=replace)

        return file

    def remove(self, name: str, version: Version | None = None) -> None:
        """Remove an object if it exists and has the version."""
        try:
            self._bucket.delete(self._key(name), version)
        except ConditionFailedError:
            raise changed(self.path(name)) from None

    def read(self, name: str) -> Small | None:
        """Return a small object; None if it does not exist."""
        found = self._bucket.get(self._key(name))
        return None if found is None else Small(*found)

    def swap(
        self,
        name: str,
        expected: Tag | None,
        content: bytes,
        *,
        durably: bool = True,  # noqa: ARG002 - a visible object is as durable as the store
    ) -> Tag | None:
        """Replace the content of a small object unless it has changed (see `base.Store`)."""
        try:
            return self._bucket.put(self._key(name), content, if_absent=expected is None, if_match=expected)
        except ConditionFailedError:
            return None

    def quarantine(self, name: str, version: Version) -> str:
        """Mark a version of an object as quarantined; its bytes stay under its name."""
        found = self.look(name)
        if found is None or found.version != version:
            raise changed(self.path(name))
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

    def _entry(self, found: StoredObject) -> Entry:
        name = found.key.removeprefix(self._prefix)
        return Entry(name, found.nbytes, found.version, self.path(name))

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _free_name(self, name: str) -> str:
        path = PurePosixPath(name)
        for number in itertools.count(1):
            free = name if number == 1 else f"{path.stem}-{number}{path.suffix}"
            if self.look(free) is None:
                return free
        raise AssertionError("there are names without end")
