"""Temporary files and directories: their names, and the locks that show whether their writers live.

A temporary file holds an exclusive advisory lock (flock) for as long as its writer lives. The operating
system drops the lock however the writer ends, so a temporary file that can be locked has no writer.

==== ==================================== =====================================
step writer                               cleaner
==== ==================================== =====================================
1    create under a fresh random name     open by name
2    lock, without waiting                lock, without waiting
3    does the name still lead to it?      does the name still lead to it?
4    write, flush                         unlink, with the lock held
5    rename, or link and unlink (see       close
     `renaming`), with the lock held
6    close
==== ==================================== =====================================

Whoever fails at 2 or 3 gives up: the cleaner leaves the file alone, the writer starts again with another
name. So in every order of events:

- A cleaner comes between the writer's 1 and 2: it may remove the file, which holds nothing yet. The writer
  finds it locked (2) or its name gone (3), and starts again.
- A cleaner comes later: it fails at 2.
- A cleaner opens the file, the writer renames and closes it, the cleaner locks it: the cleaner finds that
  the name is gone (3). It never unlinks another name than the temporary one, so what was published stays.
- The writer is killed in the middle of 5, between link and unlink: the file has both names and no lock. A
  cleaner unlinks the temporary one, and what was published stays.
- The writer finds that the name which it was to publish under is taken (5), and tries the next: the file keeps
  its temporary name and its lock until one is free.
- Two cleaners: the second one fails at 2, or finds at 3 that the name is gone.
- Between a cleaner's 3 and 4 the name can't come to lead to another file: no name is used twice.
- A child process forked while a file is written would share the lock, and keep it when the writer dies. So it
  closes the file at once; nor does it remove anything of its parent's.

All of this goes for temporary directories as well, in which the files of a directory are gathered before it is
published: the lock is held on the directory itself, and a cleaner removes it with what is in it.

On some network and FUSE file systems a lock is seen by one machine only. Names therefore carry a tag of the
machine: on the machine that wrote a file the lock decides alone; on any other the file must also have been
left unchanged for a day. Where locks do not exist (Windows, some network file systems) nothing is removed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import zlib
from abc import ABC, abstractmethod
from pathlib import Path

from ckptfmt._core.storage.local import file_locks
from ckptfmt._core.storage.local.durability import flush_directory
from ckptfmt._core.storage.local.file_locks import Lock, leads_to, try_lock
from ckptfmt._core.storage.local.permissions import set_mode, temporary_mode, usual_mode
from ckptfmt._core.storage.local.publication.renaming import rename_to_free_name
from ckptfmt._core.system.forks import release_in_children
from ckptfmt.errors import StorageError

__all__ = [
    "LONGEST_STEM_BYTES",
    "NAME",
    "TemporaryDirectory",
    "TemporaryFile",
    "discard_all",
    "remove_tree",
    "temporary_stem",
    "this_machine",
]

NAME = re.compile(r"\.(?P<stem>.+)\.(?P<machine>[0-9a-f]{8})-[0-9a-f]{16}\.tmp", re.DOTALL)
"""What temporary files and directories are called."""

LONGEST_STEM_BYTES = 100
"""Leaves room for the rest of the name wherever names may be 143 bytes long (eCryptfs) or longer."""

_ATTEMPTS = 100

_unpublished: set[Path] = set()
"""Temporary files and directories of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unpublished.clear)


def discard_all() -> None:
    """Remove every temporary file and directory of this process, which is going to end before anything is published.

    It may be called from a handler of signals. Afterwards, nothing may be written any more.
    """
    for path in tuple(_unpublished):
        with contextlib.suppress(OSError):
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()


class _Temporary(ABC):
    """A file or directory beside a target that becomes the target or disappears.

    Nothing exists before `create`. `discard` may be called at any time and in any state: when an interrupt
    comes in the middle of `create`, too.

    Args:
        target: Absolute path of what is to be published.

    Attributes:
        target: The same.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._path: Path | None = None
        release_in_children(self)

    def discard(self) -> None:
        """Close it, and remove it unless it was renamed, if that is possible. A second call does nothing."""
        try:
            self._close()  # first: removing a directory takes a descriptor, and there may be no other one
        finally:
            if self._path is not None:
                # Otherwise it is gone already, or a leftover for the next writer.
                with contextlib.suppress(OSError):
                    self._remove(self._path)
                self._forget()

    def release_in_child(self) -> None:
        """Close it in a forked child: it is the parent's, to be published or removed there."""
        self._path = None
        self._close()

    def _create(self) -> None:
        for _ in range(_ATTEMPTS):
            # The path is noted first, so that `discard` finds whatever an interrupt leaves behind.
            self._path = self.target.with_name(_temporary_name(self.target.name))
            _unpublished.add(self._path)
            try:
                locked = self._make(self._path)
            except FileExistsError:
                self._forget()  # not ours
                continue
            if locked:
                return
            self.discard()
        raise StorageError(
            f"{self.target.parent}: something removes or locks every new temporary file at once; stop it"
        )

    def _forget(self) -> None:
        """Leave what is at the path alone: it was published, removed, or never made."""
        if self._path is not None:
            _unpublished.discard(self._path)
        self._path = None

    @abstractmethod
    def _make(self, path: Path) -> bool:
        """Make, open and lock it; say whether no cleaner was quicker.

        Raises:
            FileExistsError: The name is taken.
        """

    @abstractmethod
    def _close(self) -> None:
        """Close it, which gives up the lock."""

    @abstractmethod
    def _remove(self, path: Path) -> None:
        """Remove it, with all that is in it."""


class TemporaryFile(_Temporary):
    """A file beside a target that becomes the target or disappears (see `_Temporary`)."""

    def __init__(self, target: Path) -> None:
        self._file: io.FileIO | None = None
        super().__init__(target)

    @property
    def descriptor(self) -> int:
        """Descriptor of the open file, for writing."""
        if self._file is None:
            raise ValueError(f"{self.target}: its temporary file is not open")
        return self._file.fileno()

    def create(self) -> int:
        """Create and lock the file, and return its descriptor. Nobody else may open it (see `permissions`).

        Raises:
            StorageError: Something removes every new temporary file at once.
            OSError: The operating system refused.
        """
        self._create()
        return self.descriptor

    def open_up(self) -> None:
        """Give the file the permissions that are usual in its directory. To be done before its content is flushed.

        Raises:
            OSError: They could not be changed.
        """
        set_mode(self.descriptor, usual_mode(self.target.parent))

    def rename(self, free_name: Path | None = None) -> None:
        """Rename the file to the target. Its content must be flushed already. It stays open until `discard`.

        Args:
            free_name: Another path in the same directory, which must be free; nothing is replaced there.

        Raises:
            FileExistsError: It is not free. Try another one.
            OSError: It was not renamed; `discard` is still to be called.
        """
        if self._path is None:
            raise ValueError(f"{self.target}: its temporary file is not open")
        if not file_locks.HAVE_LOCKS:
            self._close()  # Windows renames no open file
        if free_name is None:
            self._path.replace(self.target)
        else:
            rename_to_free_name(self._path, free_name)
        self._forget()

    def flush_name(self) -> None:
        """Wait until the name that the file was renamed to is on stable storage.

        Raises:
            OSError: It may not be.
        """
        flush_directory(self.target.parent, None if self._file is None else self._file.fileno())

    def _make(self, path: Path) -> bool:
        mode = temporary_mode(self.target.parent)
        self._file = io.FileIO(path, "x", opener=lambda path, flags: os.open(path, flags, mode))
        return _is_ours(path, self.descriptor)

    def _close(self) -> None:
        if self._file is not None:
            # The content is flushed or given up, so that a failure changes nothing.
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _remove(self, path: Path) -> None:
        path.unlink()


class TemporaryDirectory(_Temporary):
    """A directory beside a target that becomes the target or disappears, with all that is in it (see `_Temporary`)."""

    def __init__(self, target: Path) -> None:
        self._descriptor: int | None = None
        super().__init__(target)

    @property
    def path(self) -> Path:
        """The directory, to be written to."""
        if self._path is None:
            raise ValueError(f"{self.target}: its temporary directory is not there")
        return self._path

    @property
    def descriptor(self) -> int | None:
        """Descriptor of the directory; None on systems that open none."""
        return self._descriptor

    def create(self) -> None:
        """Make and lock the directory. Nobody else may look into it (see `permissions`).

        Raises:
            StorageError: Something removes every new temporary directory at once.
            OSError: The operating system refused.
        """
        self._create()

    def open_up(self) -> None:
        """Give the directory the permissions that are usual beside it. To be done before it is flushed.

        Raises:
            OSError: They could not be changed.
        """
        if self._descriptor is not None:
            set_mode(self._descriptor, usual_mode(self.target.parent, of_directory=True))

    def rename(self) -> None:
        """Rename the directory to the target, which may be there and empty. It stays open until `discard`.

        Raises:
            OSError: It was not renamed; `discard` is still to be called.
        """
        if self.target.exists():
            self.target.rmdir()  # it was empty; if it is no more, this fails
        self.path.rename(self.target)
        self._forget()

    def flush_name(self) -> None:
        """Wait until the name that the directory was renamed to is on stable storage.

        Raises:
            OSError: It may not be.
        """
        flush_directory(self.target.parent, self._descriptor)

    def _make(self, path: Path) -> bool:
        path.mkdir(temporary_mode(self.target.parent, of_directory=True))
        if not hasattr(os, "O_DIRECTORY"):  # Windows
            return True
        with contextlib.suppress(FileNotFoundError):  # a cleaner was quicker
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            return _is_ours(path, self._descriptor)
        return False

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _remove(self, path: Path) -> None:
        remove_tree(path)


def remove_tree(directory: Path) -> None:
    """Remove a directory with all that is in it, by one descriptor for each level; links in it are not followed.

    Raises:
        OSError: Something in it could not be removed. All else was.
    """
    with contextlib.suppress(OSError):
        directory.rmdir()  # it is empty, and needs no descriptor
        return
    failed = None
    with os.scandir(directory) as entries:
        found = list(entries)
    for entry in found:
        try:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry.path))
            else:
                Path(entry.path).unlink()
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
    directory.rmdir()


def _is_ours(path: Path, descriptor: int) -> bool:
    """Lock what was just made; say whether no cleaner was quicker."""
    lock = try_lock(descriptor)
    return lock is Lock.UNSUPPORTED or (lock is Lock.TAKEN and leads_to(path, descriptor))


def _temporary_name(name: str) -> str:
    return f".{temporary_stem(name)}.{this_machine()}-{os.urandom(8).hex()}.tmp"


def temporary_stem(name: str) -> str:
    """Return what temporary files have of the name of the file that they are to become."""
    stem = name
    while len(os.fsencode(stem)) > LONGEST_STEM_BYTES:
        stem = stem[:-1]  # whole characters: some file systems refuse half of one
    return stem


def this_machine() -> str:
    """Return the tag of this machine."""
    host = os.uname().nodename if hasattr(os, "uname") else ""
    return f"{zlib.crc32(host.encode(errors='surrogateescape')):08x}"
