"""The seam between checkpoints and the places where they are kept.

A *store* is one such place: a directory, or one prefix of a bucket. It holds *objects*. An object has a name, which is
one part of a path, and bytes. Checkpoints are objects, and so are pins, leases and locks.

Everything above this package reads and writes through `Store`. A store needs no rename, no random writes and no
directories: an object appears completely, a small object changes by compare-and-swap, and a removal names the version
that it removes.

Bytes become durable in one place: `Publication.commit`. `ckptfmt.testing.stores.StoreTests` defines the behaviour of
every verb as tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import NewType, Protocol, Self

__all__ = [
    "Entry",
    "Guard",
    "Properties",
    "Publication",
    "Small",
    "Source",
    "Store",
    "Tag",
    "Unfinished",
    "Version",
    "Writer",
]


Version = NewType("Version", str)
"""Identifies one content of an object among all that its name has had or will have, as an ETag does."""

Tag = NewType("Tag", str)
"""Identifies the content of a small object, for `Store.swap`."""

Guard = Callable[[], AbstractContextManager[None]]
"""Returns a context to hold while something is published or removed. If it raises, nothing is."""


@dataclass(frozen=True)
class Properties:
    """Guarantees that a store claims. `probing.probe` checks them.

    Attributes:
        create_if_absent: Of two programs that publish under one name, one succeeds and the other gets an error.
        compare_and_swap: Of two programs that replace the same content, one succeeds and the other is refused.
        atomic_replace: A new object replaces an old one completely.
        random_access_writes: Bytes can be written in any order without being held in memory.
        exclusive_publication: A publication without `replace` never replaces an object, however large the new one is.
            Where it may, names have to be unique.
        local_reads: Reading needs no network, so that a whole checkpoint may be read back after a save.
        connections: Number of concurrent reads or writes that are worthwhile.
    """

    create_if_absent: bool
    compare_and_swap: bool
    atomic_replace: bool
    random_access_writes: bool
    exclusive_publication: bool
    local_reads: bool
    connections: int


@dataclass(frozen=True)
class Entry:
    """Listing entry of an object.

    Attributes:
        name: Name of the object.
        nbytes: Length in bytes; None if it is unknown, as that of a dangling link.
        version: Version of the object; None if it is unknown.
        content_id: Equal for all names of one object, such as hard links, and for no other object.
        link: Whether the name is a symbolic link.
    """

    name: str
    nbytes: int | None
    version: Version | None
    content_id: str
    link: bool = False


@dataclass(frozen=True)
class Small:
    """Content of a small object.

    Attributes:
        content: Bytes of the object.
        tag: Tag of this content.
    """

    content: bytes
    tag: Tag


class Source(Protocol):
    """An object that is open for reading: any range of bytes, from any thread. A context manager that closes it.

    All reads are of one version. Once that version is gone, a read may raise `ChangedError`.
    """

    @property
    def path(self) -> str:
        """Path or URL as the user gave it."""

    @property
    def size(self) -> int:
        """Length in bytes when the object was opened."""

    @property
    def connections(self) -> int:
        """Number of concurrent reads that are worthwhile."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes from `offset`."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` with the bytes from `offset`."""

    def read_cached(self, offset: int, buffer: memoryview) -> int:
        """Fill the beginning of `buffer` with bytes that are had without waiting for a device; return how many.

        0 where the first byte is not in memory, or where nobody can tell.
        """

    def view(self, offset: int, nbytes: int) -> memoryview | None:
        """Return these bytes mapped, read-only and without a copy; None where that is not possible."""

    def private_view(self, offset: int, nbytes: int) -> memoryview | None:
        """Return these bytes as `view` does, but writable; only this process sees what is written."""

    def close(self) -> None:
        """Close the object; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Publication(Protocol):
    """A new object that appears completely or not at all. A context manager that discards what is not committed.

    Attributes:
        path: Path or URL of the object; after `commit`, the one under which it was published.
        position: Highest offset written so far, plus one.
    """

    path: str
    position: int

    def write(self, buffer: bytes | bytearray | memoryview) -> None:
        """Append all bytes of a contiguous buffer.

        Raises:
            StorageError: The bytes cannot be written. The new object is discarded.
        """

    def write_at(self, offset: int, buffer: bytes | bytearray | memoryview) -> None:
        """Write all bytes of a contiguous buffer at an offset, from any thread. Bytes never written are zero.

        Raises:
            StorageError: The bytes cannot be written, or one of them was written before. The object can no longer be
                published.
        """

    def copy_from(self, source: Source, offset: int, nbytes: int) -> bool:
        """Ask the store to copy the first bytes from another object; return whether it did. If not, write them.

        Raises:
            StorageError: The bytes cannot be written. The new object is discarded.
        """

    def commit(self, *, written_bytes: int | None = None) -> None:
        """Publish the object. When this returns, the object is durable.

        Args:
            written_bytes: Expected number of bytes written, without gaps; another number is an error.

        Raises:
            StorageError: The object was not published; or it was, and may not be durable (the message says which).
        """

    def abort(self) -> None:
        """Discard the object unless it is published. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Writer(StrEnum):
    """Writer of an object that is not published."""

    LIVING = "living"
    """A live process."""
    NONE = "none"
    """No process: the writer died."""
    UNKNOWN = "unknown"
    """Whether a process writes it is unknown."""


@dataclass(frozen=True)
class Unfinished:
    """Object that a writer has not published yet, or never will.

    Attributes:
        path: Path or URL.
        target: Name under which the writer was going to publish it.
        cut: Whether `target` may be cut short.
        writer: State of its writer.
        nbytes: Length in bytes; None if it is unknown.
    """

    path: str
    target: str
    cut: bool
    writer: Writer
    nbytes: int | None = None


class Store(Protocol):
    """A place for objects, for use by any thread.

    Every method raises `StorageError` if the store refuses, or cannot be reached.
    """

    @property
    def location(self) -> str:
        """Path or URL of the store."""

    @property
    def properties(self) -> Properties:
        """Guarantees that the store claims."""

    def path(self, name: str) -> str:
        """Return the path or URL of an object. `resolve.locate` is the inverse."""

    def list(self) -> Iterator[Entry]:
        """Yield an entry for each object, in any order. Objects that come or go meanwhile may be included.

        Raises:
            StorageError: The store cannot be listed.
        """

    def look(self, name: str) -> Entry | None:
        """Return the entry of an object; None if the object does not exist.

        Raises:
            StorageError: Whether the object exists is unknown.
        """

    def open(self, name: str, version: Version | None = None) -> Source:
        """Open an object for reading.

        Args:
            name: Name of the object.
            version: The version to read; None: the current one.

        Raises:
            ChangedError: The current version is another one.
            StorageError: The object does not exist (errno ENOENT), or cannot be read.
        """

    def create(
        self, name: str, *, expected_bytes: int | None = None, replace: bool = False, guard: Guard = nullcontext
    ) -> Publication:
        """Return a new object to write. Enter it as a context manager to begin.

        Args:
            name: Name of the object.
            expected_bytes: Expected length, so that a lack of space shows at once; None if it is unknown.
            replace: Replace an object that has the name. False: replace nothing; if the name is taken, publish as
                `NAME-2.EXT` and so on. If another program takes the name in the last moment, `commit` may raise.
            guard: Held while the object is published.
        """

    def remove(self, name: str, version: Version | None = None) -> None:
        """Remove an object if it exists.

        Args:
            name: Name of the object.
            version: The version to remove; None: any.

        Raises:
            ChangedError: The current version is another one, which stays.
            StorageError: The object cannot be removed.
        """

    def read(self, name: str) -> Small | None:
        """Return a small object (64 KiB at most); None if it does not exist."""

    def swap(self, name: str, expected: Tag | None, content: bytes, *, durably: bool = True) -> Tag | None:
        """Replace the content of a small object atomically, unless it has changed since it was read.

        Args:
            name: Name of the object.
            expected: Tag of the content to replace; None: the object must not exist.
            content: New content.
            durably: Wait until the new content is durable.

        Returns:
            Tag of the new content; None if the content is not the expected one, and nothing was changed.
        """

    def quarantine(self, name: str, version: Version) -> str:
        """Quarantine a damaged object: `list` no longer yields it, and its bytes stay. Return its path or URL now.

        Raises:
            ChangedError: The current version is another one.
            StorageError: The object cannot be quarantined, and is unchanged.
        """

    def make_durable(self, name: str) -> None:
        """Wait until a published object is durable, no matter which program published it.

        Raises:
            StorageError: The object may not be durable.
        """

    def lock(self, *, wait_seconds: float = ...) -> AbstractContextManager[None]:
        """Hold the lock of the store, for moments: from the last check to a publication, a removal or a pin.

        The lock is reentrant. A store without locks holds nothing, so make each decision as late as possible.

        Raises:
            LockedError: Another process or thread holds the lock.
        """

    def prune_lock(self, *, wait_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Hold the lock for applying a retention policy. A program that needs both locks takes this one first.

        Raises:
            LockedError: Another process or thread holds the lock.
        """

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return the unpublished objects, sorted by path."""

    def clean(self, name: str | None = None) -> tuple[str, ...]:
        """Remove the unpublished objects of dead writers, never those of live ones, and return their paths.

        Args:
            name: Remove only objects that were going to be published under this name; None: all.
        """

    def is_being_written(self, name: str) -> bool:
        """Return whether a process is known to change an object in place. False also means unknown."""

    def forget_cached(self, name: str) -> None:
        """Make the next read of an object bypass caches."""
