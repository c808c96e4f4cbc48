"""The door to fsspec: file systems for the schemes that obstore lacks, such as `hf://` and `sftp://`.

Their requests have no conditions. What this module checks before it writes, another program may change in between, so
it claims none of the guarantees that need conditions. Some show a file while it is written: without its end, nobody
takes it for a checkpoint.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import fsspec

from ckptfmt._core.format.digest import digest
from ckptfmt._core.storage.base import Properties, Tag, Version
from ckptfmt._core.storage.buckets.base import ConditionFailedError, StoredObject
from ckptfmt.errors import ChangedError, StorageError

__all__ = ["FsspecBucket", "fsspec_bucket"]

_PROPERTIES = Properties(
    create_if_absent=False,
    compare_and_swap=False,
    atomic_replace=False,
    random_access_writes=False,
    exclusive_publication=False,
    local_reads=False,
    connections=4,
)
_VERSIONS = ("ETag", "etag", "e_tag", "oid", "generation", "md5", "mtime", "last_modified", "LastModified", "created")


def fsspec_bucket(root: str, asked: str, options: Mapping[str, Any]) -> FsspecBucket:
    """Return the bucket at a URL.

    Args:
        root: URL of the bucket, or the first part of a path on a server.
        asked: The URL that was asked for, for messages.
        options: Arguments of the file system.

    Raises:
        StorageError: fsspec has no file system for the scheme, or it cannot be used.
    """
    scheme = root.partition("://")[0]
    try:
        files, path = fsspec.core.url_to_fs(root, use_listings_cache=False, **options)
    except ValueError as error:
        if scheme not in fsspec.available_protocols():
            raise StorageError(
                f"{asked}: {scheme}:// is not supported; use a local path, or the URL of a store that obstore or "
                "fsspec supports"
            ) from None
        raise StorageError(f"{asked}: cannot be used: {error}; check the URL and the store options") from error
    except ImportError as error:
        raise StorageError(f"{asked}: {scheme}:// needs another package: {error}") from None
    except (OSError, TypeError) as error:
        raise StorageError(f"{asked}: cannot be used: {error}; check the URL and the store options") from error
    return FsspecBucket(files, str(path), root)


class FsspecBucket:
    """Objects by key (see `buckets.base.Bucket`).

    Args:
        files: The file system.
        path: Path of the bucket in it.
        root: URL of the bucket.

    Attributes:
        properties: Guarantees that the bucket claims.
    """

    def __init__(self, files: fsspec.AbstractFileSystem, path: str, root: str) -> None:
        self.properties = _PROPERTIES
        self._files = files
        self._path = path.rstrip("/")
        self._root = root

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects directly under a prefix."""
        directory = f"{self._path}/{prefix}".rstrip("/")
        try:
            with self._errors(prefix, "cannot be listed"):
                found = self._files.ls(directory, detail=True, refresh=True)
        except FileNotFoundError:
            return iter(())
        places = [(*str(info["name"]).rpartition("/")[::2], info) for info in found if info["type"] == "file"]
        inside = directory.strip("/")  # of a file, its own name is listed
        return iter([_stored(prefix + name, info) for place, name, info in places if place.strip("/") == inside])

    def head(self, key: str) -> StoredObject | None:
        """Return what is known of an object; None if it does not exist."""
        try:
            with self._errors(key, "cannot be examined"):
                info = self._files.info(self._full(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _stored(key, info) if info["type"] == "file" else None

    def get(self, key: str) -> tuple[bytes, Tag] | None:
        """Return the content and the tag of a small object; None if it does not exist."""
        try:
            with self._errors(key, "cannot be read"):
                content = bytes(self._files.cat_file(self._full(key)))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return content, _tag(content)

    def tail(self, key: str, nbytes: int) -> tuple[StoredObject, bytes] | None:
        """Return an object and its last bytes; None if it does not exist."""
        found = self.head(key)
        if found is None or not found.nbytes:
            return None if found is None else (found, b"")
        start = max(0, found.nbytes - nbytes)
        try:
            return found, self.read(key, start, found.nbytes - start, found.version)
        except ConditionFailedError:
            raise ChangedError(f"{self._root}/{key}: the object has been replaced; open it again") from None

    def read(self, key: str, offset: int, nbytes: int, version: Version) -> bytes:
        """Return a range of bytes; the version is compared afterwards."""
        try:
            with self._errors(key, "cannot be read"):
                data = bytes(self._files.cat_file(self._full(key), start=offset, end=offset + nbytes))
        except FileNotFoundError:
            raise ConditionFailedError from None
        found = self.head(key)
        if len(data) != nbytes or found is None or found.version != version:
            raise ConditionFailedError
        return data

    def put(self, key: str, content: bytes, *, if_absent: bool = False, if_match: Tag | None = None) -> Tag:
        """Store a small object, and return its tag; a condition is checked just before."""
        if if_absent and self.head(key) is not None:
            raise ConditionFailedError
        if if_match is not None:
            found = self.get(key)
            if found is None or found[1] != if_match:
                raise ConditionFailedError
        with self._errors(key, "cannot be written"):
            self._make_parent(key)
            self._files.pipe_file(self._full(key), content)
        return _tag(content)

    def delete(self, key: str, version: Version | None = None) -> None:
        """Remove an object if it exists; the version is compared just before."""
        found = self.head(key)
        if found is None:
            return
        if version is not None and found.version != version:
            raise ConditionFailedError
        try:
            with self._errors(key, "cannot be removed"):
                self._files.rm_file(self._full(key))
        except FileNotFoundError:
            return

    def upload(self, key: str, path: str, *, part_bytes: int, replace: bool) -> _Upload:
        """Begin an upload."""
        before = self.head(key)
        if before is not None and not replace:
            error = StorageError(f"{path}: another program has just published under this name; save again")
            error.errno = errno.EEXIST
            raise error
        with self._errors(key, "cannot be written"):
            self._make_parent(key)
            file = self._files.open(self._full(key), "wb", block_size=part_bytes, autocommit=False)
        return _Upload(self, file, key, path, shown=self.head(key) != before)

    @contextmanager
    def errors_of_upload(self, key: str) -> Iterator[None]:
        """Turn the errors of an upload into ours."""
        try:
            with self._errors(key, "cannot be written"):
                yield
        except FileNotFoundError:
            raise StorageError(f"{self._root}/{key}: cannot be written: its directory does not exist") from None

    @contextmanager
    def _errors(self, key: str, what: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, StorageError):
            raise
        except Exception as error:
            ours = StorageError(f"{self._root}/{key}: {what}: {type(error).__name__}: {error}")
            ours.errno = error.errno if isinstance(error, OSError) and error.errno is not None else errno.EIO
            if isinstance(error, NotImplementedError):
                ours.errno = errno.EROFS
            raise ours from error

    def _make_parent(self, key: str) -> None:
        self._files.makedirs(self._full(key).rpartition("/")[0], exist_ok=True)

    def _full(self, key: str) -> str:
        return f"{self._path}/{key}"


class _Upload:
    """An upload (see `upload.Upload`).

    Args:
        bucket: The bucket.
        file: The file, open for writing.
        key: Key of the object.
        path: URL of the object, for messages.
        shown: Whether the file system shows the file while it is written.
    """

    def __init__(self, bucket: FsspecBucket, file: Any, key: str, path: str, *, shown: bool) -> None:
        self._bucket = bucket
        self._file = file
        self._key = key
        self._path = path
        self._shown = shown

    def append(self, part: bytes) -> None:
        """Send the next part."""
        with self._bucket.errors_of_upload(self._key):
            self._file.write(part)

    def complete(self) -> None:
        """Make the object visible."""
        with self._bucket.errors_of_upload(self._key):
            self._file.close()
            self._file.commit()

    def read_back(self, nbytes: int) -> tuple[int, bytes]:
        """Return the length of the published object and its last bytes."""
        found = self._bucket.tail(self._key, nbytes)
        if found is None:
            raise ChangedError(f"{self._path}: the object has been removed; save again")
        return found[0].nbytes, found[1]

    def abort(self) -> None:
        """Discard what was sent."""
        with self._bucket.errors_of_upload(self._key):
            self._file.discard()
        if self._shown:
            self._bucket.delete(self._key)


def _stored(key: str, info: Mapping[str, Any]) -> StoredObject:
    facts = [f"{name}={_plain(info[name])}" for name in _VERSIONS if info.get(name) is not None]
    return StoredObject(key, info["size"], Version(" ".join([*facts, f"size={info['size']}"])))


def _plain(value: object) -> str:
    """Return a fact in one form: some file systems give a time as a number here, and as a datetime there."""
    if isinstance(value, datetime):
        value = value.timestamp()
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _tag(content: bytes) -> Tag:
    return Tag(digest(content).hex())
