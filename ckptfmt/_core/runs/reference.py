"""What a directory tells of a checkpoint without opening it again: its place, its files and the facts in them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.storage.base import Entry, Version
from ckptfmt._core.storage.resolve import name_of
from ckptfmt.errors import CkptfmtError

__all__ = ["CheckpointReference"]

_NO_FACTS = Metadata()


@dataclass(frozen=True)
class CheckpointReference:
    """A checkpoint of a directory: one file, or one that names others (its parts) and stands for all of them.

    Attributes:
        path: The directory as it was named, joined with the name of the first file.
        metadata: The facts written inside; unless it is usable, at most the epochs that it says are finished.
        identity: Its identity (spec 12.1); None unless it is usable.
        error: Why it is not usable, if it is not: its index could not be read, or its data are damaged.
        entry: How to know the first file again; None if the store does not tell.
        parts: How to know the others again.
        pinned: Whether one of its files has a pin.
        verified: Whether every byte of it was found to be right.
    """

    path: str
    metadata: Metadata = _NO_FACTS
    identity: str | None = None
    error: CkptfmtError | None = field(default=None, compare=False)
    entry: Entry | None = None
    parts: tuple[Entry, ...] = ()
    pinned: bool = False
    verified: bool = False

    @property
    def usable(self) -> bool:
        """Whether nothing is known to be wrong with it."""
        return self.error is None

    @property
    def name(self) -> str:
        """Name of its first file."""
        return name_of(self.path)

    @property
    def files(self) -> tuple[Entry, ...]:
        """Its files, the first one first; empty if the store does not tell of it."""
        return () if self.entry is None else (self.entry, *self.parts)

    @property
    def link(self) -> bool:
        """Whether it is a symbolic link to another file."""
        return self.entry is not None and self.entry.link

    @property
    def version(self) -> Version | None:
        """Version of its first file; None if the store does not tell."""
        return None if self.entry is None else self.entry.version

    @property
    def file_bytes(self) -> int | None:
        """Length of its files together; None if it cannot be known."""
        if self.entry is None or self.entry.nbytes is None:
            return None
        return sum(it.nbytes or 0 for it in self.files)

    @property
    def content_id(self) -> str:
        """What all names of the first file have in common, and no other file."""
        return self.path if self.entry is None else self.entry.content_id

    @property
    def run_id(self) -> str | None:
        """The run that it says it belongs to."""
        return self.metadata.run_id
