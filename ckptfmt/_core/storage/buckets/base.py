"""The requests of an object store, which `buckets.store.BucketStore` makes a store of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ckptfmt._core.storage.base import Properties, Tag, Version
from ckptfmt._core.storage.upload import Upload

__all__ = ["Bucket", "ConditionFailedError", "StoredObject"]


class ConditionFailedError(Exception):
    """The condition of a request failed. Only the modules of this package handle it."""


@dataclass(frozen=True)
class StoredObject:
    """An object of a bucket.

    Attributes:
        key: Key of the object.
        nbytes: Length in bytes.
        version: Version of the object.
    """

    key: str
    nbytes: int
    version: Version


class Bucket(Protocol):
    """Objects by key, for use by any thread. Each request is atomic.

    Every method raises `StorageError`, which names the object, if the service refuses or cannot be reached.
    """

    @property
    def properties(self) -> Properties:
        """Guarantees that the bucket claims."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects directly under a prefix, which is empty or ends with a slash, in any order."""

    def head(self, key: str) -> StoredObject | None:
        """Return what is known of an object; None if it does not exist."""

    def get(self, key: str) -> tuple[bytes, Tag] | None:
        """Return the content and the tag of a small object; None if it does not exist."""

    def tail(self, key: str, nbytes: int) -> tuple[StoredObject, bytes] | None:
        """Return an object and its last bytes, of one version; None if it does not exist."""

    def read(self, key: str, offset: int, nbytes: int, version: Version) -> bytes:
        """Return a range of bytes, which is not empty and inside the object.

        Raises:
            ConditionFailedError: The object has another version, or does not exist.
        """

    def put(self, key: str, content: bytes, *, if_absent: bool = False, if_match: Tag | None = None) -> Tag:
        """Store a small object, and return its tag.

        Args:
            key: Key of the object.
            content: Bytes of the object.
            if_absent: Require that the object does not exist.
            if_match: Required current tag; None: any.

        Raises:
            ConditionFailedError: A requirement is not met, and nothing was changed.
        """

    def delete(self, key: str, version: Version | None = None) -> None:
        """Remove an object if it exists.

        Args:
            key: Key of the object.
            version: Required current version; None: any.

        Raises:
            ConditionFailedError: The object has another version, and stays.
        """

    def upload(self, key: str, path: str, *, part_bytes: int, replace: bool) -> Upload:
        """Begin an upload.

        Args:
            key: Key of the object.
            path: URL of the object, for messages.
            part_bytes: Length of all parts but the last one.
            replace: Replace an object that has the key. False: as far as the service can, replace nothing.
        """
