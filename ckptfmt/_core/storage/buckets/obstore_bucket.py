"""The door to obstore: buckets of S3, Google Cloud Storage and Azure, and web servers.

Credentials, endpoints and regions come from the environment, as obstore documents them (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` and so on), and from store options.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import obstore
from obstore import exceptions
from obstore.store import HTTPStore, from_url

from ckptfmt._core.storage.base import Properties, Tag, Version
from ckptfmt._core.storage.buckets.base import ConditionFailedError, StoredObject
from ckptfmt.errors import ChangedError, StorageError

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta, PutMode, WritableFile
    from obstore.store import ObjectStore

__all__ = ["SCHEMES", "ObstoreBucket", "obstore_bucket"]

SCHEMES = frozenset({"s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https"})

_WEB = frozenset({"http", "https"})
_IN_FLIGHT = 8  # parts of an upload: memory is bounded by them
# More than a moment, less than the patience of a person: a save that fails is tried again with the next state.
_RETRIES = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
}
_ENVIRONMENT = ("AWS_", "AZURE_", "GOOGLE_")
_HTTP_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
_CODE = re.compile(r"<Code>([^<]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
_SERVER = re.compile(r"https?://[^/\s]+")
_UNREACHABLE = "error sending request"
_TAG_SEPARATOR = "\n"


def obstore_bucket(root: str, options: Mapping[str, Any]) -> ObstoreBucket:
    """Return the bucket at a URL, the same one for equal options and environment: it keeps connections.

    Args:
        root: URL of the bucket, such as `s3://bucket`.
        options: Arguments of obstore's `from_url`.

    Raises:
        StorageError: The options are not those of this service.
    """
    environment = tuple(sorted((k, v) for k, v in os.environ.items() if k.upper().startswith(_ENVIRONMENT)))
    return _bucket(root, _Options(options), environment, os.getpid())


class _Options(dict[str, Any]):
    """Options as a key of a cache."""

    def __hash__(self) -> int:  # type: ignore[override]  # nobody changes them
        return hash(repr(sorted(self.items(), key=str)))


@lru_cache(maxsize=64)
def _bucket(root: str, options: _Options, _environment: tuple[tuple[str, str], ...], _process: int) -> ObstoreBucket:
    scheme = root.partition("://")[0].lower()
    arguments: dict[str, Any] = {"retry_config": _RETRIES, **options}
    client = dict(arguments.get("client_options") or {})
    if _is_plain_http(root, arguments):
        client.setdefault("allow_http", True)
    arguments["client_options"] = client
    try:
        store = HTTPStore.from_url(root, **arguments) if scheme in _WEB else from_url(root, **arguments)
    except (exceptions.BaseError, TypeError, ValueError) as error:
        raise StorageError(f"{root}: cannot be used: {_reason(error)}; check the URL and the store options") from error
    return ObstoreBucket(store, root, read_only=scheme in _WEB)


def _is_plain_http(root: str, options: Mapping[str, Any]) -> bool:
    """Return whether the service is reached without TLS, which obstore refuses unless it is asked for."""
    named = [options.get(name) for name in ("endpoint", "endpoint_url", "aws_endpoint", "aws_endpoint_url")]
    endpoints = [*named, *map(os.environ.get, _HTTP_ENDPOINTS), root]
    return any(str(it).startswith("http://") for it in endpoints if it)


class ObstoreBucket:
    """Objects by key (see `buckets.base.Bucket`).

    Args:
        store: The bucket in obstore.
        root: URL of the bucket.
        read_only: Whether the service only serves objects.

    Attributes:
        properties: Guarantees that the bucket claims.
    """

    def __init__(self, store: ObjectStore, root: str, *, read_only: bool = False) -> None:
        self.properties = Properties(
            create_if_absent=not read_only,
            compare_and_swap=not read_only,
            atomic_replace=True,
            random_access_writes=False,
            exclusive_publication=False,  # uploads in parts have no conditions
            local_reads=False,
            connections=16,
        )
        self._store = store
        self._root = root
        self._read_only = read_only

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects directly under a prefix."""
        if self._read_only:
            raise StorageError(f"{self._url(prefix)}: a web server does not list its files; name one")
        with self._errors(prefix, "cannot be listed"):
            found = obstore.list_with_delimiter(self._store, prefix.rstrip("/") or None)["objects"]
        return map(_stored, found)

    def head(self, key: str) -> StoredObject | None:
        """Return what is known of an object; None if it does not exist."""
        try:
            with self._errors(key, "cannot be examined"):
                return _stored(obstore.head(self._store, self._key(key)), key)
        except FileNotFoundError:
            return None

    def get(self, key: str) -> tuple[bytes, Tag] | None:
        """Return the content and the tag of a small object; None if it does not exist."""
        try:
            with self._errors(key, "cannot be read"):
                found = obstore.get(self._store, self._key(key))
                return bytes(found.bytes()), _tag(found.meta)
        except FileNotFoundError:
            return None

    def tail(self, key: str, nbytes: int) -> tuple[StoredObject, bytes] | None:
        """Return an object and its last bytes; None if it does not exist."""
        try:
            found = obstore.get(self._store, self._key(key), options={"range": {"suffix": nbytes}})
            facts, data = _stored(found.meta, key), bytes(found.bytes())
            if found.range[1] == facts.nbytes and len(data) == min(nbytes, facts.nbytes):
                return facts, data
        except FileNotFoundError:
            return None
        except (exceptions.BaseError, OSError, ValueError):
            pass  # an empty object, or a service without such ranges: then in two steps
        seen = self.head(key)
        if seen is None:
            return None
        start = max(0, seen.nbytes - nbytes)
        try:
            return seen, self.read(key, start, seen.nbytes - start, seen.version) if seen.nbytes else b""
        except ConditionFailedError:
            raise ChangedError(f"{self._url(key)}: the object has been replaced; open it again") from None

    def read(self, key: str, offset: int, nbytes: int, version: Version) -> bytes:
        """Return a range of bytes of one version."""
        try:
            with self._errors(key, "cannot be read"):
                found = self._range(key, offset, nbytes, version)
                same = found.meta["size"] >= offset + nbytes and _version(found.meta) == version
                data = bytes(found.bytes()) if same else b""
        except FileNotFoundError:
            raise ConditionFailedError from None
        if len(data) != nbytes:  # or the service ignored the condition
            raise ConditionFailedError
        return data

    def _range(self, key: str, offset: int, nbytes: int, version: Version) -> GetResult:
        reach = (offset, offset + nbytes)
        if version.startswith('"'):  # a strong ETag; what else serves as a version is compared with the answer
            return obstore.get(self._store, self._key(key), options={"range": reach, "if_match": version})
        return obstore.get(self._store, self._key(key), options={"range": reach})

    def put(self, key: str, content: bytes, *, if_absent: bool = False, if_match: Tag | None = None) -> Tag:
        """Store a small object, and return its tag."""
        self._require_writable(key)
        mode: PutMode = "create" if if_absent else "overwrite"
        if if_match is not None:
            e_tag, _, version = if_match.partition(_TAG_SEPARATOR)
            mode = {"e_tag": e_tag, "version": version} if version else {"e_tag": e_tag}
        try:
            with self._errors(key, "cannot be written"):
                done = obstore.put(self._store, self._key(key), content, mode=mode, use_multipart=False)
        except FileNotFoundError:
            if if_match is not None:  # the object is gone
                raise ConditionFailedError from None
            raise self._missing_bucket(key) from None
        if done["e_tag"] is None and done["version"] is None:
            raise StorageError(f"{self._url(key)}: the service returns no ETag, which leases and locks need")
        return _tag_of(done["e_tag"], done["version"])

    def delete(self, key: str, version: Version | None = None) -> None:
        """Remove an object if it exists. Services remove unconditionally, so the version is compared just before."""
        self._require_writable(key)
        if version is not None:
            found = self.head(key)
            if found is None:
                return
            if found.version != version:
                raise ConditionFailedError
        try:
            with self._errors(key, "cannot be removed"):
                obstore.delete(self._store, self._key(key))
        except FileNotFoundError:
            return

    def upload(self, key: str, path: str, *, part_bytes: int, replace: bool) -> _Upload:
        """Begin an upload. Nothing is sent before the second part."""
        self._require_writable(key)
        return _Upload(self, key, path, part_bytes, replace=replace)

    def open_writer(self, key: str, part_bytes: int) -> WritableFile:
        """Begin an upload in parts, several of which are in flight."""
        with self._errors(key, "cannot be written"):
            return obstore.open_writer(self._store, self._key(key), buffer_size=part_bytes, max_concurrency=_IN_FLIGHT)

    @contextmanager
    def errors_of_upload(self, key: str) -> Iterator[None]:
        """Turn the errors of an upload into ours."""
        try:
            with self._errors(key, "cannot be written"):
                yield
        except FileNotFoundError:
            raise self._missing_bucket(key) from None

    @contextmanager
    def _errors(self, key: str, what: str) -> Iterator[None]:
        """Turn obstore's errors into ours, but for `FileNotFoundError`.

        Raises:
            ConditionFailedError: A condition is not met.
            StorageError: Anything else.
        """
        try:
            yield
        except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
            raise ConditionFailedError from None
        except FileNotFoundError:
            raise
        except (exceptions.BaseError, OSError, ValueError) as error:
            ours = StorageError(f"{self._url(key)}: {what}: {_reason(error)}")
            denied = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
            ours.errno = errno.EACCES if denied else errno.EIO
            raise ours from error

    def _missing_bucket(self, key: str) -> StorageError:
        error = StorageError(f"{self._url(key)}: cannot be written: the bucket {self._root} does not exist; create it")
        error.errno = errno.ENOENT
        return error

    def _require_writable(self, key: str) -> None:
        if self._read_only:
            error = StorageError(f"{self._url(key)}: cannot be written: a web server only serves files")
            error.errno = errno.EROFS
            raise error

    def _key(self, key: str) -> str:
        return unquote(key) if self._read_only else key

    def _url(self, key: str) -> str:
        return f"{self._root}/{key}"


class _Upload:
    """An upload (see `upload.Upload`): in one request if there is only one part, else in parts.

    Only the single request can be conditional. Of several parts, the name is looked up just before they are completed.
    """

    def __init__(self, bucket: ObstoreBucket, key: str, path: str, part_bytes: int, *, replace: bool) -> None:
        self._bucket = bucket
        self._key = key
        self._path = path
        self._part_bytes = part_bytes
        self._replace = replace
        self._first: bytes | None = None
        self._writer: WritableFile | None = None

    def append(self, part: bytes) -> None:
        """Send the next part; wait if too many are in flight."""
        if self._writer is None and self._first is None:
            self._first = part
            return
        with self._bucket.errors_of_upload(self._key):
            if self._writer is None:
                assert self._first is not None  # this is the second part
                self._writer = self._bucket.open_writer(self._key, self._part_bytes)
                self._writer.write(self._first)
                self._first = None
            self._writer.write(part)

    def complete(self) -> None:
        """Make the object visible."""
        if self._writer is None:
            try:
                self._bucket.put(self._key, self._first or b"", if_absent=not self._replace)
            except ConditionFailedError:
                raise self._taken() from None
            return
        if not self._replace and self._bucket.head(self._key) is not None:
            raise self._taken()
        with self._bucket.errors_of_upload(self._key):
            self._writer.close()
        self._writer = None

    def read_back(self, nbytes: int) -> tuple[int, bytes]:
        """Return the length of the published object and its last bytes."""
        found = self._bucket.tail(self._key, nbytes)
        if found is None:
            raise ChangedError(f"{self._path}: the object has been removed; save again")
        return found[0].nbytes, found[1]

    def abort(self) -> None:
        """Discard the parts. A lifecycle rule removes those of a program that was killed."""
        writer, self._writer, self._first = self._writer, None, None
        if writer is None:
            return
        error = RuntimeError("discarded")
        try:
            writer.__exit__(type(error), error, None)  # which aborts, while `close` completes
        except (exceptions.BaseError, OSError, ValueError):
            return  # nothing is visible all the same

    def _taken(self) -> StorageError:
        error = StorageError(f"{self._path}: another program has just published under this name; save again")
        error.errno = errno.EEXIST
        return error


def _stored(meta: ObjectMeta, key: str | None = None) -> StoredObject:
    return StoredObject(meta["path"] if key is None else key, meta["size"], _version(meta))


def _version(meta: ObjectMeta) -> Version:
    """Return the ETag of an object; where a service has none, its time and length."""
    return Version(meta["e_tag"] or meta["version"] or f"{meta['last_modified'].isoformat()} {meta['size']}")


def _tag(meta: ObjectMeta) -> Tag:
    return _tag_of(meta["e_tag"], meta["version"])


def _tag_of(e_tag: str | None, version: str | None) -> Tag:
    return Tag(f"{e_tag or ''}{_TAG_SEPARATOR}{version or ''}")


def _reason(error: Exception) -> str:
    """Return in one line why a request failed: what the service says, or the library."""
    text = str(error)
    said = ": ".join(it[1] for it in (_CODE.search(text), _MESSAGE.search(text)) if it is not None)
    if said:
        return said
    line = (next(iter(text.splitlines()), "") or type(error).__name__).rpartition(" - ")[2]
    line = line.removeprefix("HTTP error: ").removeprefix("Server returned non-2xx status code: ").rstrip(": ")
    server = _SERVER.search(text)
    if line == _UNREACHABLE and server is not None:
        return f"{server[0]} cannot be reached"
    return line
