"""Small files that are read and replaced atomically, as other stores do by conditional requests."""

from __future__ import annotations

import os
from pathlib import Path

from ckptfmt._core.format.digest import digest
from ckptfmt._core.storage.base import Small, Tag
from ckptfmt._core.storage.local.durability import flush_file
from ckptfmt._core.storage.local.lock import directory_lock
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.publication.temporary import TemporaryFile
from ckptfmt.errors import StorageError

__all__ = ["MAX_BYTES", "read_small", "swap_small"]

MAX_BYTES = 1 << 16


def read_small(path: Path) -> Small | None:
    """Return a small file; None if it does not exist. Its tag is the digest of its content.

    Raises:
        StorageError: The file cannot be read, or is longer than 64 KiB.
    """
    # A link could lead anywhere, and to open a pipe would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            content = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(str(path), "cannot be read", error, hidden=True) from error
    if len(content) > MAX_BYTES:
        raise StorageError(f"{path}: longer than {MAX_BYTES:,} bytes, so not a file that ckptfmt wrote; remove it")
    return Small(content, _tag(content))


def swap_small(path: Path, expected: Tag | None, content: bytes, *, durably: bool) -> Tag | None:
    """Replace the content of a small file unless it has changed (see `base.Store.swap`).

    Raises:
        StorageError: The file cannot be read or replaced, or may not be durable.
    """
    if expected is None:
        return _tag(content) if _publish(path, content, durably=durably, replace=False) else None
    with directory_lock(path.parent):
        found = read_small(path)
        if found is None or found.tag != expected:
            return None
        _publish(path, content, durably=durably, replace=True)
    return _tag(content)


def _tag(content: bytes) -> Tag:
    return Tag(digest(content).hex())


def _publish(path: Path, content: bytes, *, durably: bool, replace: bool) -> bool:
    temporary = TemporaryFile(path)
    try:
        descriptor = temporary.create()
        while content:
            content = content[os.write(descriptor, content) :]
        temporary.open_up()
        if durably:
            flush_file(descriptor)
        try:
            temporary.rename(None if replace else path)
        except FileExistsError:
            return False
        if durably:
            temporary.flush_name()
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(str(path), "cannot be written", error, hidden=True) from error
    finally:
        temporary.discard()
    return True
