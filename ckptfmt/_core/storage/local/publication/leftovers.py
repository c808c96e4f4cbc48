"""Temporary files and directories that are left over from dead writers: found, told from those of living ones, removed.

How, and why no file of a living writer is ever removed, stands in `temporary`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ckptfmt._core.storage.base import Writer
from ckptfmt._core.storage.local import file_locks
from ckptfmt._core.storage.local.file_locks import Lock, leads_to, try_lock
from ckptfmt._core.storage.local.paths import local_path
from ckptfmt._core.storage.local.publication.temporary import (
    LONGEST_STEM_BYTES,
    NAME,
    remove_tree,
    temporary_stem,
    this_machine,
)

__all__ = ["Leftover", "Writer", "clean_leftovers", "temporary_files"]

_LONGEST_CHARACTER = 4  # bytes in UTF-8
_FOREIGN_QUIET_SECONDS = 24 * 60 * 60


@dataclass(frozen=True)
class Leftover:
    """A temporary file of ckptfmt: of a writer that has not published yet, or never will.

    Attributes:
        path: The file.
        stem: Name of the file that was to be published, cut after 100 bytes.
        cut: Whether the name was too long, so that more of it may have followed.
        writer: Who writes it.
    """

    path: Path
    stem: str
    cut: bool
    writer: Writer


def clean_leftovers(directory: str | os.PathLike[str], name: str | None = None) -> tuple[str, ...]:
    """Remove temporary files of ckptfmt whose writers are dead, and return their paths.

    It never removes a file that a living process is writing (spec 15.5), never touches a file whose name is
    not that of a temporary file of ckptfmt, and leaves alone what it may not remove.

    Args:
        directory: Where to look; directories below it are left alone.
        name: Only the leftovers of writers that were to publish under this file name.

    Raises:
        StorageError: `directory` is a URL, or no directory can have this name.
    """
    path = Path(local_path(directory))
    stem = None if name is None else temporary_stem(name)
    removed = []
    for found, match in _named_as_temporary(path):
        if stem is not None and match["stem"] != stem:
            continue
        if _remove_if_dead(found, foreign=match["machine"] != this_machine()):
            removed.append(str(found))
    return tuple(removed)


def temporary_files(directory: str | os.PathLike[str]) -> tuple[Leftover, ...]:
    """Return the temporary files of ckptfmt that are directly in a directory, by name, and who writes them.

    A directory that cannot be listed has none.

    Raises:
        StorageError: `directory` is a URL, or no directory can have this name.
    """
    return tuple(
        Leftover(
            path=found,
            stem=match["stem"],
            cut=len(os.fsencode(match["stem"])) > LONGEST_STEM_BYTES - _LONGEST_CHARACTER,
            writer=_writer_of(found, foreign=match["machine"] != this_machine()),
        )
        for found, match in _named_as_temporary(Path(local_path(directory)))
        if not found.is_dir()
    )


def _named_as_temporary(directory: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        return
    for name in names:
        if match := NAME.fullmatch(name):
            yield directory / name, match


def _writer_of(path: Path, *, foreign: bool) -> Writer:
    """Try a shared lock and give it back at once; a writer that is just being born and meets it starts again."""
    if not file_locks.HAVE_LOCKS:
        return Writer.UNKNOWN
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Writer.UNKNOWN
    try:
        lock = try_lock(descriptor, shared=True)
        if lock is Lock.HELD_BY_ANOTHER:
            return Writer.LIVING
        if lock is Lock.UNSUPPORTED or (foreign and not _is_quiet(os.fstat(descriptor).st_mtime)):
            return Writer.UNKNOWN
    except OSError:
        return Writer.UNKNOWN
    finally:
        _close(descriptor)
    return Writer.NONE


def _is_quiet(changed: float) -> bool:
    """Say whether a file was left unchanged for so long that no other machine can be writing it."""
    return time.time() - changed >= _FOREIGN_QUIET_SECONDS


def _remove_if_dead(path: Path, *, foreign: bool) -> bool:
    if not file_locks.HAVE_LOCKS:
        return False
    descriptor = None
    try:
        descriptor, is_directory = _open_to_lock(path)
        found = os.fstat(descriptor)
        if not (stat.S_ISREG(found.st_mode) or is_directory):
            return False
        if foreign and not _is_quiet(_last_change(path) if is_directory else found.st_mtime):
            return False
        if try_lock(descriptor) is not Lock.TAKEN or not leads_to(path, descriptor):
            return False
        if is_directory:
            remove_tree(path)
        else:
            path.unlink()
    except OSError:
        return False
    finally:
        if descriptor is not None:
            _close(descriptor)
    return True


def _open_to_lock(path: Path) -> tuple[int, bool]:
    """Return a descriptor of a file or directory, and whether it is a directory."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # For writing: network file systems give an exclusive lock to nobody else.
        return os.open(path, flags | os.O_WRONLY), False
    except IsADirectoryError:
        return os.open(path, flags | os.O_RDONLY | os.O_DIRECTORY), True


def _last_change(directory: Path) -> float:
    """Return when a directory, or a file in it, was changed last."""
    return max(entry.lstat().st_mtime for entry in (directory, *directory.iterdir()))


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
