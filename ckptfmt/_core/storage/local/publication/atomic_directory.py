"""Directories that stay when the power goes: made, or published as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptfmt._core.storage.local.durability import flush_directory, flush_file
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.paths import local_path
from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers
from ckptfmt._core.storage.local.publication.temporary import TemporaryDirectory
from ckptfmt.errors import StorageError

__all__ = ["AtomicDirectory", "make_directory", "write_member"]


class AtomicDirectory:
    """A directory that appears at its path with all of its files, on stable storage, or not at all.

    ```python
    with AtomicDirectory("out") as directory:
        ...  # put files into directory.work
        directory.commit()
    ```

    Leaving the `with` without `commit`, by an error or an interrupt, removes what was written. After a kill it stays
    behind until the next `AtomicDirectory` for the same path removes it. Who writes the files flushes them.

    Args:
        path: Where the directory is to appear. It may be there and empty.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = local_path(path)
        self._temporary: TemporaryDirectory | None = None

    @property
    def work(self) -> Path:
        """The directory to write to, beside the target. It is there within the `with`, until `commit`."""
        return self._opened().path

    def __enter__(self) -> Self:
        """Remove the leftovers of dead writers, and make the directory to work in.

        Raises:
            StorageError: Something else is at the path, or the directory cannot be made.
        """
        target = Path(self._path)
        try:
            if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
                raise StorageError(f"{self._path}: already exists and is not an empty directory; choose another name")
            target = target.resolve()
            clean_leftovers(target.parent, target.name)
            self._temporary = TemporaryDirectory(target)
            self._temporary.create()
        except BaseException as error:  # an interrupt, too, may come when the directory is made already
            self._discard()
            self._explain(error)
            raise
        return self

    def commit(self) -> None:
        """Publish the directory, and wait until that is on stable storage.

        Raises:
            StorageError: It was not published, or may not outlast a power cut.
        """
        temporary = self._opened()
        try:
            temporary.open_up()
            flush_directory(temporary.path)
            temporary.rename()
            temporary.flush_name()
        except OSError as error:
            self._explain(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()
        self._explain(error)

    def _opened(self) -> TemporaryDirectory:
        if self._temporary is None:
            raise ValueError(f"{self._path}: is not being written: not begun yet, or ended")
        return self._temporary

    def _discard(self) -> None:
        if self._temporary is not None:
            self._temporary.discard()  # after `commit` it is published and stays
            self._temporary = None

    def _explain(self, error: BaseException | None) -> None:
        """Raise an error of ours for one of the system."""
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(self._path, "cannot be written", error) from error


def write_member(path: Path, pieces: Iterable[bytes | bytearray | memoryview]) -> int:
    """Write a file into a directory that is not published yet; return its length once it is on stable storage.

    Raises:
        StorageError: It cannot be written, or is there already.
    """
    nbytes = 0
    try:
        with path.open("xb") as out:
            for piece in pieces:
                out.write(piece)
                nbytes += len(piece)
            out.flush()
            flush_file(out.fileno())
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(str(path), "cannot be written", error) from error
    return nbytes


def make_directory(path: str | os.PathLike[str]) -> None:
    """Make a directory and the parents that it lacks, durably; one that is there is fine.

    Each is on stable storage before the next one is made in it. So whatever is flushed in it later cannot vanish with
    it, and if this is interrupted, only the last one that was made may not be durable: the next call sees to that.

    Raises:
        StorageError: It cannot be made, something else is there, or it may not outlast a power cut.
    """
    target = Path(local_path(path))
    try:
        there, *missing = reversed(_up_to_an_existing_one(target))
        with contextlib.suppress(PermissionError):  # then it was not made by this program, a moment ago
            flush_directory(there.resolve().parent)
        for directory in missing:
            with contextlib.suppress(FileExistsError):  # another process was quicker, or something else is there
                directory.mkdir()
            _flush_into_parent(directory)
        if not target.is_dir():
            raise StorageError(f"{target}: already exists and is not a directory; choose another name")
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(str(target), "cannot be made", error) from error


def _up_to_an_existing_one(path: Path) -> list[Path]:
    """Return a path and those above it, up to the first one that is there."""
    found = [path]
    while not found[-1].exists() and found[-1].parent != found[-1]:
        found.append(found[-1].parent)
    return found


def _flush_into_parent(directory: Path) -> None:
    descriptor = None
    with contextlib.suppress(PermissionError, AttributeError):  # the umask may forbid to look into it; Windows
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flush_directory(directory.parent, descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)
