"""Temporary files: their names, their locks, and which ones are left over from dead writers.

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
- A child process forked while a file is written shares the lock. Should the writer die, its file is left
  over until the child ends too.

On some network and FUSE file systems a lock is seen by one machine only. Names therefore carry a tag of the
machine: on the machine that wrote a file the lock decides alone; on any other the file must also have been
left unchanged for a day. Where locks do not exist (Windows, some network file systems) nothing is removed.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import re
import shutil
import stat
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ckptfmt.errors import StorageError
from ckptfmt.storage.paths import local_path
from ckptfmt.storage.renaming import rename_to_free_name

try:
    import fcntl
except ImportError:  # Windows
    HAVE_LOCKS = False
else:
    HAVE_LOCKS = True

__all__ = [
    "HAVE_LOCKS",
    "Leftover",
    "TemporaryFile",
    "Writer",
    "clean_leftovers",
    "discard_all",
    "register",
    "temporary_files",
    "unregister",
]

_PATTERN = re.compile(r"\.(?P<stem>.+)\.(?P<machine>[0-9a-f]{8})-[0-9a-f]{16}\.tmp", re.DOTALL)
# Leaves room for the rest of the name wherever names may be 143 bytes long (eCryptfs) or longer.
_STEM_BYTES = 100
_LONGEST_CHARACTER = 4  # bytes in UTF-8
_FOREIGN_QUIET_SECONDS = 24 * 60 * 60
_ATTEMPTS = 100


class Writer(enum.StrEnum):
    """Who writes a temporary file."""

    LIVING = "living"
    """A living process holds its lock."""
    NONE = "none"
    """No process holds its lock: its writer died."""
    UNKNOWN = "unknown"
    """There are no locks here, the file may not be opened, or another machine may be writing it."""


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


class _Lock(enum.Enum):
    TAKEN = enum.auto()
    HELD_BY_ANOTHER = enum.auto()
    UNSUPPORTED = enum.auto()


_unpublished: set[Path] = set()
"""Temporary files and directories of this process."""


def register(path: Path) -> None:
    """Note a temporary file or directory before it is made."""
    _unpublished.add(path)


def unregister(path: Path) -> None:
    """Note that it is published or removed."""
    _unpublished.discard(path)


def discard_all() -> None:
    """Remove every temporary file and directory of this process, which is going to end before anything is published.

    It may be called from a handler of signals. Afterwards, nothing may be written any more.
    """
    for path in tuple(_unpublished):
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


class TemporaryFile:
    """A file beside a target that becomes the target or disappears.

    Nothing exists before `create`. `discard` may be called at any time and in any state: when an interrupt
    comes in the middle of `create`, too.

    Args:
        target: Absolute path of the file that is to be published.

    Attributes:
        target: The same.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._path: Path | None = None
        self._file: io.FileIO | None = None

    @property
    def descriptor(self) -> int:
        """Descriptor of the open file, for writing."""
        if self._file is None:
            raise ValueError(f"{self.target}: its temporary file is not open")
        return self._file.fileno()

    def create(self) -> int:
        """Create and lock the file, and return its descriptor. Its mode comes from the umask.

        Raises:
            StorageError: Something removes every new temporary file at once.
            OSError: The operating system refused.
        """
        for _ in range(_ATTEMPTS):
            # The path is noted first, so that `discard` finds whatever an interrupt leaves behind.
            self._path = self.target.with_name(_temporary_name(self.target.name))
            register(self._path)
            try:
                self._file = io.FileIO(self._path, "x")
            except FileExistsError:
                unregister(self._path)
                self._path = None  # not ours
                continue
            lock = _try_lock(self.descriptor, fcntl.LOCK_EX) if HAVE_LOCKS else _Lock.UNSUPPORTED
            if lock is _Lock.UNSUPPORTED:
                return self.descriptor
            if lock is _Lock.TAKEN and _leads_to(self._path, self.descriptor):
                return self.descriptor
            self.discard()
        raise StorageError(f"{self.target.parent}: something removes every new temporary file at once; stop it")

    def rename(self, free_name: Path | None = None) -> None:
        """Rename the file to the target and close it. Its content must be flushed already.

        Args:
            free_name: Another path in the same directory, which must be free; nothing is replaced there.

        Raises:
            FileExistsError: It is not free. Try another one.
            OSError: It was not renamed; `discard` is still to be called.
        """
        if self._path is None:
            raise ValueError(f"{self.target}: its temporary file is not open")
        if not HAVE_LOCKS:
            self._close()  # Windows renames no open file
        if free_name is None:
            self._path.replace(self.target)
        else:
            rename_to_free_name(self._path, free_name)
        unregister(self._path)
        self._path = None
        self._close()

    def discard(self) -> None:
        """Close the file and remove it, as far as that is possible. A second call does nothing."""
        try:
            self._close()
        finally:
            if self._path is not None:
                # Otherwise it is gone already, or a leftover for the next writer.
                with contextlib.suppress(OSError):
                    self._path.unlink()
                unregister(self._path)
                self._path = None

    def _close(self) -> None:
        if self._file is not None:
            # The content is flushed or given up, so that a failure changes nothing.
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


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
    stem = None if name is None else _stem(name)
    removed = []
    for found, match in _named_as_temporary(path):
        if stem is not None and match["stem"] != stem:
            continue
        if _remove_if_dead(found, foreign=match["machine"] != _machine()):
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
            cut=len(os.fsencode(match["stem"])) > _STEM_BYTES - _LONGEST_CHARACTER,
            writer=_writer_of(found, foreign=match["machine"] != _machine()),
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
        if match := _PATTERN.fullmatch(name):
            yield directory / name, match


def _writer_of(path: Path, *, foreign: bool) -> Writer:
    """Try a shared lock and give it back at once; a writer that is just being born and meets it starts again."""
    if not HAVE_LOCKS:
        return Writer.UNKNOWN
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Writer.UNKNOWN
    try:
        lock = _try_lock(descriptor, fcntl.LOCK_SH)
        if lock is _Lock.HELD_BY_ANOTHER:
            return Writer.LIVING
        if lock is _Lock.UNSUPPORTED or (foreign and not _quiet(os.fstat(descriptor))):
            return Writer.UNKNOWN
    finally:
        os.close(descriptor)
    return Writer.NONE


def _quiet(found: os.stat_result) -> bool:
    """Say whether a file was left unchanged for so long that no other machine can be writing it."""
    return time.time() - found.st_mtime >= _FOREIGN_QUIET_SECONDS


def _remove_if_dead(path: Path, *, foreign: bool) -> bool:
    if not HAVE_LOCKS:
        return False
    try:
        # For writing: network file systems give an exclusive lock to nobody else.
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if (foreign and not _quiet(found)) or not stat.S_ISREG(found.st_mode):
            return False
        if _try_lock(descriptor, fcntl.LOCK_EX) is not _Lock.TAKEN or not _leads_to(path, descriptor):
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _try_lock(descriptor: int, kind: int) -> _Lock:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return _Lock.HELD_BY_ANOTHER
    except OSError:
        return _Lock.UNSUPPORTED
    return _Lock.TAKEN


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _temporary_name(name: str) -> str:
    return f".{_stem(name)}.{_machine()}-{os.urandom(8).hex()}.tmp"


def _stem(name: str) -> str:
    stem = name
    while len(os.fsencode(stem)) > _STEM_BYTES:
        stem = stem[:-1]  # whole characters: some file systems refuse half of one
    return stem


def _machine() -> str:
    host = os.uname().nodename if hasattr(os, "uname") else ""
    return f"{zlib.crc32(host.encode(errors='surrogateescape')):08x}"
