"""References to the checkpoints of a store: name, files, metadata and identity of each."""

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
    """A checkpoint in a store: one file, or a first file that represents the checkpoint and its other files (parts).

    Attributes:
        path: Path or URL of the first file.
        metadata: Facts recorded in the checkpoint; of an unusable one at most the number of finished epochs.
        identity: Identity of the checkpoint (spec 12.1); None if it is unusable.
        error: Why the checkpoint is unusable: its index cannot be read, or its data is damaged. None if it is usable.
        entry: Entry of the first file; None if it is unknown.
        parts: Entries of the other files.
        pinned: Whether one of the files has a pin.
        verified: Whether every byte was verified.
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
        """Name of the first file."""
        return name_of(self.path)

    @property
    def files(self) -> tuple[Entry, ...]:
        """Entries of all files, the first one first; empty if they are unknown."""
        return () if self.entry is None else (self.entry, *self.parts)

    @property
    def link(self) -> bool:
        """Whether it is a symbolic link to another file."""
        return self.entry is not None and self.entry.link

    @property
    def version(self) -> Version | None:
        """Version of the first file; None if it is unknown."""
        return None if self.entry is None else self.entry.version

    @property
    def file_bytes(self) -> int | None:
        """Length of all files in bytes; None if it is unknown."""
        if self.entry is None or self.entry.nbytes is None:
            return None
        return sum(it.nbytes or 0 for it in self.files)

    @property
    def content_id(self) -> str:
        """Equal for all names of the first file, such as hard links, and for no other file."""
        return self.path if self.entry is None else self.entry.content_id

    @property
    def run_id(self) -> str | None:
        """The run that it says it belongs to."""
        return self.metadata.run_id
