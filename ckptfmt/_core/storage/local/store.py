"""The local store: a directory whose files are the objects (see `base.Store`)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ckptfmt._core.storage.base import Entry, Guard, Properties, Small, Tag, Unfinished, Version
from ckptfmt._core.storage.local.file_locks import HAVE_LOCKS
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.paths import local_path
from ckptfmt._core.storage.local.source import LocalSource, open_source, version_of
from ckptfmt.errors import ChangedError

if TYPE_CHECKING:
    from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile

__all__ = ["LocalStore"]

# Modules that write are imported on first use: most programs that look into a directory write nothing.

_PROPERTIES = Properties(
    create_if_absent=True,
    compare_and_swap=HAVE_LOCKS,
    atomic_replace=True,
    random_access_writes=True,
    exclusive_publication=True,
    local_reads=True,
    connections=os.cpu_count() or 1,
)
# Holders need moments, or seconds on a slow file server.
_LOCK_SECONDS = 60.0


class LocalStore:
    """The files directly in a directory. The directory need not exist yet; directories in it are not objects.

    An object is published by renaming a temporary file that is already flushed (`publication.atomic_file`). Small
    objects are compared and swapped under the lock of the directory, so this is safe only where locks exist.

    Args:
        directory: Path of the directory.

    Attributes:
        location: Path of the directory as the user gave it.
        properties: Guarantees of the store.

    Raises:
        StorageError: The path is a URL or is impossible.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.location = local_path(directory)
        self.properties = _PROPERTIES
        self._directory = Path(self.location)

    def path(self, name: str) -> str:
        """Return the path of a file: the path of the directory joined with the name."""
        return str(self._path(name))

    def list(self) -> Iterator[Entry]:
        """Yield the files, by name.

        Raises:
            StorageError: The directory cannot be listed.
        """
        try:
            with os.scandir(self._directory) as found:
                names = sorted(entry.name for entry in found)
        except OSError as error:
            raise storage_error(self.location, "cannot be listed", error) from error
        for name in names:
            try:
                entry = _entry(self._path(name))
            except OSError:  # gone or refused: `look` shows which
                entry = Entry(name, None, None, self.path(name))
            if entry is not None:
                yield entry

    def look(self, name: str) -> Entry | None:
        """Return the entry of a file; None if there is no file, but perhaps a directory.

        Raises:
            StorageError: The file cannot be examined.
        """
        try:
            return _entry(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(self.path(name), "cannot be looked at", error) from error

    def open(self, name: str, version: Version | None = None) -> LocalSource:
        """Open a regular file for ranged reads (see `open_source`)."""
        source = open_source(self.path(name))
        if version is not None and source.version != version:
            source.close()
            raise self._changed(name)
        return source

    def create(
        self, name: str, *, expected_bytes: int | None = None, replace: bool = False, guard: Guard = nullcontext
    ) -> AtomicFile:
        """Return a new file that appears completely, on stable storage, or not at all (see `AtomicFile`)."""
        from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile

        return AtomicFile(self.path(name), expected_bytes=expected_bytes, replace=replace, guard=guard)

    def remove(self, name: str, version: Version | None = None) -> None:
        """Remove a file or link if it exists.

        The system cannot remove by version, so this checks the version and then removes. Hold the lock so that no other
        program comes in between.

        Raises:
            ChangedError: The file has another version, and stays.
            StorageError: The file cannot be removed.
        """
        path = self._path(name)
        try:
            if version is not None:
                self._require(name, version)
            path.unlink(missing_ok=True)
        except OSError as error:
            if isinstance(error, ChangedError):
                raise
            raise storage_error(str(path), "cannot be removed", error) from error

    def read(self, name: str) -> Small | None:
        """Return a small file; None if it does not exist."""
        from ckptfmt._core.storage.local.small_files import read_small

        return read_small(self._path(name))

    def swap(self, name: str, expected: Tag | None, content: bytes, *, durably: bool = True) -> Tag | None:
        """Replace the content of a small file unless it has changed."""
        from ckptfmt._core.storage.local.small_files import swap_small

        return swap_small(self._path(name), expected, content, durably=durably)

    def quarantine(self, name: str, version: Version) -> str:
        """Rename a file to `NAME.damaged`, or `NAME.damaged-2` and so on, and return its new path."""
        from ckptfmt._core.storage.local.quarantine import quarantine

        self._require(name, version)
        return quarantine(self.path(name))

    def make_durable(self, name: str) -> None:
        """Wait until a file and its name are on stable storage."""
        from ckptfmt._core.storage.local.durability import flush_published

        try:
            flush_published(self._path(name))
        except OSError as error:
            raise storage_error(self.path(name), "cannot be made durable", error) from error

    def lock(self, *, wait_seconds: float = _LOCK_SECONDS) -> AbstractContextManager[None]:
        """Hold the lock of the directory, for moments (see `directory_lock`)."""
        from ckptfmt._core.storage.local.lock import directory_lock

        return directory_lock(self._directory, wait_seconds=wait_seconds)

    def prune_lock(self, *, wait_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Hold the lock for applying a retention policy (see `local.lock.prune_lock`)."""
        from ckptfmt._core.storage.local.lock import prune_lock

        return prune_lock(self._directory, wait_seconds=wait_seconds)

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return the temporary files, sorted by name; none if the directory cannot be listed."""
        from ckptfmt._core.storage.local.publication.leftovers import temporary_files

        return tuple(
            Unfinished(str(file.path), file.stem, file.cut, file.writer, _nbytes(file.path))
            for file in temporary_files(self._directory)
        )

    def clean(self, name: str | None = None) -> tuple[str, ...]:
        """Remove temporary files of dead writers (see `clean_leftovers`)."""
        from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers

        return clean_leftovers(self._directory, name)

    def is_being_written(self, name: str) -> bool:
        """Return whether a process of this machine is known to have a file open for writing."""
        from ckptfmt._core.storage.local.quarantine import is_being_written

        return is_being_written(self.path(name))

    def forget_cached(self, name: str) -> None:
        """Ask the system to drop a file from its page cache."""
        from ckptfmt._core.storage.local.quarantine import forget_cached

        forget_cached(self.path(name))

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _require(self, name: str, version: Version) -> None:
        entry = self.look(name)
        if entry is not None and entry.version != version:
            raise self._changed(name)

    def _changed(self, name: str) -> ChangedError:
        return ChangedError(f"{self.path(name)}: the file has changed or was replaced; open it again")


def _entry(path: Path) -> Entry | None:
    """Return the entry of a file; None if it is a directory.

    Raises:
        OSError: The file is gone or cannot be examined.
    """
    found = path.lstat()
    link = stat.S_ISLNK(found.st_mode)
    if link:
        with contextlib.suppress(OSError):
            found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        return None
    if stat.S_ISLNK(found.st_mode):  # dangling, or its target cannot be examined
        return Entry(path.name, None, None, str(path), link=True)
    return Entry(path.name, found.st_size, version_of(found), f"{found.st_dev:x}:{found.st_ino:x}", link)


def _nbytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
