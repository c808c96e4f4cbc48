"""The seam between checkpoints and the places where they are kept.

A *store* is one such place: a directory, or what lies under one prefix of a bucket. It holds *objects*: a name, which
is one part of a path, and bytes. Checkpoints are objects, and so are the small ones beside them (pins, leases, locks).

Everything above this package reaches bytes through the verbs of `Store`. A store needs neither rename nor random
writes nor directories: objects appear whole, small ones change by compare-and-swap, and a removal names the version
that it is about.

Bytes become durable in one place: `Publication.commit`. `testing.stores.StoreTests` says what all of this means, as
tests that every store passes.
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
"""What tells the content of an object from every other content that its name has had or will have, such as an ETag."""

Tag = NewType("Tag", str)
"""What tells the content of a small object from every other content, for `Store.swap`."""

Guard = Callable[[], AbstractContextManager[None]]
"""Held while something is published or removed. If it raises, that is not done."""


@dataclass(frozen=True)
class Properties:
    """What a store claims to offer. `probing.probe` finds out whether it does.

    Attributes:
        create_if_absent: Of two programs that publish under one name, one succeeds, and the other one learns of it.
        compare_and_swap: Of two programs that replace the same content, one succeeds, and the other one learns of it.
        atomic_replace: A new object takes the place of an old one as a whole.
        random_access_writes: What is written is not held in memory until what comes before it is written.
        connections: How many reads or writes under way at once are worth while.
    """

    create_if_absent: bool
    compare_and_swap: bool
    atomic_replace: bool
    random_access_writes: bool
    connections: int


@dataclass(frozen=True)
class Entry:
    """What a store tells of an object without opening it.

    Attributes:
        name: Its name.
        nbytes: Its length; None if the store does not tell, as of a link that leads nowhere.
        version: Its version; None if the store does not tell.
        content_id: The same for all names of one object, such as hard links, and no other.
        link: Whether it is a symbolic link.
    """

    name: str
    nbytes: int | None
    version: Version | None
    content_id: str
    link: bool = False


@dataclass(frozen=True)
class Small:
    """A small object, as it was read.

    Attributes:
        content: Its bytes.
        tag: What tells them from others.
    """

    content: bytes
    tag: Tag


class Source(Protocol):
    """An object that is open for reading: any range of its bytes, from any thread. A context manager that closes it.

    All that is read is of one version. If that is not to be had any more, a read raises `ChangedError`.
    """

    @property
    def path(self) -> str:
        """What the user called it."""

    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes from `offset`."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` with the bytes from `offset`."""

    def view(self, offset: int, nbytes: int) -> memoryview | None:
        """Return these bytes as they lie, read-only and without a copy; None if that is not to be had."""

    def private_view(self, offset: int, nbytes: int) -> memoryview | None:
        """As `view`, but writable: what is written there is seen by this process alone."""

    def close(self) -> None:
        """Release it; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Publication(Protocol):
    """An object that is being written, and appears whole or not at all. A context manager that gives up on leaving.

    Attributes:
        path: What to call it; once it is published, what it is called.
        position: One more than the highest offset that has been written.
    """

    path: str
    position: int

    def write(self, buffer: bytes | bytearray | memoryview) -> None:
        """Append all bytes of a contiguous buffer.

        Raises:
            StorageError: Not all could be written. The content is given up.
        """

    def write_at(self, offset: int, buffer: bytes | bytearray | memoryview) -> None:
        """Write all bytes of a contiguous buffer at a place of its own, from any thread. What is left out is zero.

        Raises:
            StorageError: Not all could be written, or one of the bytes has been written before. Nothing can be
                published any more.
        """

    def copy_from(self, source: Source, offset: int, nbytes: int) -> bool:
        """Let the store copy the first bytes from another object; say whether it did. If not, write them.

        Raises:
            StorageError: They could not be written. The content is given up.
        """

    def commit(self, *, written_bytes: int | None = None) -> None:
        """Publish what has been written. When this returns, it is durable.

        Args:
            written_bytes: How many bytes were to be written, without those that were left out: no others are published.

        Raises:
            StorageError: It was not published; or, as the message then says, it may not be durable.
        """

    def abort(self) -> None:
        """Give up what has been written, unless it is published. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Writer(StrEnum):
    """Who writes an object that is not published."""

    LIVING = "living"
    """A process that is known to live."""
    NONE = "none"
    """Nobody: its writer died."""
    UNKNOWN = "unknown"
    """That cannot be told."""


@dataclass(frozen=True)
class Unfinished:
    """What a writer has written and not published: not yet, or never.

    Attributes:
        path: What to call it.
        target: Name under which it was to be published, as far as it is known.
        cut: Whether more of that name may have followed.
        writer: Who writes it.
        nbytes: What it takes up, if the store tells.
    """

    path: str
    target: str
    cut: bool
    writer: Writer
    nbytes: int | None = None


class Store(Protocol):
    """A place for objects. Any thread may use it.

    A store that is not there is empty; to publish in it may fail. Every verb raises `StorageError` if the store cannot
    do what it is asked for, or cannot be reached.
    """

    @property
    def location(self) -> str:
        """What the user called it: a path, or a URL."""

    @property
    def properties(self) -> Properties:
        """What it claims to offer."""

    def path(self, name: str) -> str:
        """Return what to call an object to the user. `resolve.locate` understands it."""

    def list(self) -> Iterator[Entry]:
        """Yield the objects, each once, in any order. What appears or goes meanwhile may be among them.

        Raises:
            StorageError: They cannot be listed.
        """

    def look(self, name: str) -> Entry | None:
        """Return what there is to tell of an object; None if there is none of that name.

        Raises:
            StorageError: That cannot be told.
        """

    def open(self, name: str, version: Version | None = None) -> Source:
        """Open an object for reading.

        Args:
            name: Its name.
            version: The version to read; None: the present one.

        Raises:
            ChangedError: There is another version.
            StorageError: There is none (errno ENOENT), or it cannot be read.
        """

    def create(
        self, name: str, *, expected_bytes: int | None = None, replace: bool = False, guard: Guard = nullcontext
    ) -> Publication:
        """Return a new object. It is begun when its `with` is entered.

        Args:
            name: Its name.
            expected_bytes: How long it will be, if that is known: if there is no room, that shows at once.
            replace: It takes the place of the one that has the name when it is published. False: it never takes
                another one's place. If the name is taken it appears as `NAME-2.EXT`, and so on; or, if that happens
                meanwhile, perhaps not at all.
            guard: Held while it is published.
        """

    def remove(self, name: str, version: Version | None = None) -> None:
        """Remove an object. If there is none, that is fine.

        Args:
            name: Its name.
            version: The version that may be removed; None: any.

        Raises:
            ChangedError: There is another version. It stays.
            StorageError: It cannot be removed.
        """

    def read(self, name: str) -> Small | None:
        """Return a small object (64 KiB at most); None if there is none of that name."""

    def swap(self, name: str, expected: Tag | None, content: bytes, *, durably: bool = True) -> Tag | None:
        """Replace the content of a small object, as a whole, if it is still the one that was read.

        Args:
            name: Its name.
            expected: The tag of its content before; None: there is no object of that name.
            content: Its content afterwards.
            durably: Wait until it is durable.

        Returns:
            The tag of the new content; None if the old one was not what is expected, and nothing was done.
        """

    def set_aside(self, name: str, version: Version) -> str:
        """Put a damaged object out of the way: it is listed no more, and not lost. Return what to call it now.

        Raises:
            ChangedError: There is another version.
            StorageError: It cannot be put aside; it is where it was.
        """

    def make_durable(self, name: str) -> None:
        """Wait until an object, whoever published it, is durable.

        Raises:
            StorageError: It may not be.
        """

    def lock(self, *, wait_seconds: float = ...) -> AbstractContextManager[None]:
        """Hold the lock of the store, for a moment: from the last look to a publication, a removal or a pin.

        A thread that has it may take it again. Where a store has no locks, nothing is held: what is decided under it
        is to be decided as late as possible.

        Raises:
            LockedError: Another process, or another thread, holds it.
        """

    def prune_lock(self, *, wait_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Hold the lock of those who apply a retention policy. Whoever needs both locks takes this one first.

        Raises:
            LockedError: Another process, or another thread, holds it.
        """

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return what is written here and not published, by path."""

    def clean(self, name: str | None = None) -> tuple[str, ...]:
        """Remove what dead writers left unfinished, and return what it was called; never what a living one writes.

        Args:
            name: Only what was to be published under this name.
        """

    def is_being_written(self, name: str) -> bool:
        """Say whether a process is known to change an object in place. False also means that nobody knows."""

    def forget_cached(self, name: str) -> None:
        """See to it that the next read of an object comes from where it is durable."""
