"""Which library has the bucket at a URL, and with which options.

obstore has the large services; fsspec has what others wrote a file system for. Both belong to the extra
`ckptfmt[remote]`. Options are kept for each bucket in this process, because a URL is resolved in many places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptfmt._core.storage.buckets.base import Bucket
from ckptfmt._core.storage.buckets.memory import memory_bucket
from ckptfmt.errors import StorageError

__all__ = ["bucket_at", "set_store_options", "split_url"]

_OBSTORE = frozenset({"s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https"})
_EXTRA = "pip install 'ckptfmt[remote]'"

_options: dict[str, Mapping[str, Any]] = {}


def split_url(url: str) -> tuple[str, str]:
    """Return the URL of the bucket, and the key in it without slashes at its ends."""
    scheme, _, rest = url.partition("://")
    name, _, key = rest.partition("/")
    return f"{scheme.lower()}://{name}", key.strip("/")


def set_store_options(url: str, options: Mapping[str, Any]) -> None:
    """Use options for everything in the bucket of a URL, from now on in this process.

    Args:
        url: URL of the bucket, or of something in it.
        options: Arguments of obstore's `from_url`, or of the file system of fsspec.
    """
    _options[split_url(url)[0]] = dict(options)


def bucket_at(root: str, asked: str) -> Bucket:
    """Return a bucket.

    Args:
        root: URL of the bucket.
        asked: The URL that was asked for, for messages.

    Raises:
        StorageError: No library has buckets of this kind, or the extra is not installed.
    """
    scheme, _, name = root.partition("://")
    if scheme == "memory":
        return memory_bucket(name)
    if not name:
        raise StorageError(f"{asked}: the URL names no bucket; use {scheme}://BUCKET/PREFIX")
    options = _options.get(root, {})
    if scheme in _OBSTORE:
        if scheme in ("http", "https") and "?" in asked:
            raise StorageError(f"{asked}: URLs with a query are not supported; download the file")
        try:
            from ckptfmt._core.storage.buckets.obstore_bucket import obstore_bucket
        except ModuleNotFoundError as error:
            raise _not_installed(asked, scheme, error) from None
        return obstore_bucket(root, options)
    try:
        from ckptfmt._core.storage.buckets.fsspec_bucket import fsspec_bucket
    except ModuleNotFoundError as error:
        raise _not_installed(asked, scheme, error) from None
    return fsspec_bucket(root, asked, options)


def _not_installed(asked: str, scheme: str, error: ModuleNotFoundError) -> StorageError:
    return StorageError(f"{asked}: {scheme}:// needs the package {error.name}; {_EXTRA}")
