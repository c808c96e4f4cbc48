"""Which checkpoints are in this directory, and how far each training run is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from ckptfmt.errors import FormatError, Problem, ProblemKind, StorageError
from ckptfmt.format.index import Metadata
from ckptfmt.ops.files import Writer, children, is_checkpoint, is_temporary, reason, size_of, writer_of
from ckptfmt.ops.inspect import metadata_json
from ckptfmt.ops.jsonform import problem_json
from ckptfmt.reader import Checkpoint

__all__ = ["EntryState", "ListEntry", "ListReport", "list_directory"]


class EntryState(StrEnum):
    """What is known of a file from its structure and its index. The data are not read."""

    OK = "ok"
    """The file is complete and its index is sound."""
    INCOMPLETE = "incomplete"
    """Its end is missing, or it is a temporary file that was never published."""
    DAMAGED = "damaged"
    """Its structure or index is not what a writer wrote, or it is not a ckptfmt file."""
    UNREADABLE = "unreadable"
    """It cannot be read, or needs a newer reader, so nothing is known."""


_STATE_OF = {
    ProblemKind.TRUNCATED: EntryState.INCOMPLETE,
    ProblemKind.CORRUPT: EntryState.DAMAGED,
    ProblemKind.MALFORMED: EntryState.DAMAGED,
    ProblemKind.LIMIT: EntryState.DAMAGED,
    ProblemKind.UNSUPPORTED: EntryState.UNREADABLE,
}

_NO_FACTS = Metadata()


@dataclass(frozen=True)
class ListEntry:
    """One file of the directory.

    Attributes:
        path: The directory as it was named, joined with the file's name.
        state: What is known of it, in one word.
        file_bytes: Length of the file; None if it cannot be known.
        metadata: The facts written inside; all absent unless the state is `ok`.
        identity: Identity of the file (spec 12.1); None unless the state is `ok`.
        problems: What is wrong with the file, if it could be read.
        error: Why it could not be read, if it could not.
        writer: For a temporary file, who writes it; None for a published one.
    """

    path: str
    state: EntryState
    file_bytes: int | None = None
    metadata: Metadata = _NO_FACTS
    identity: str | None = None
    problems: tuple[Problem, ...] = ()
    error: str | None = None
    writer: Writer | None = None

    @property
    def name(self) -> str:
        """Name of the file in its directory."""
        return Path(self.path).name

    def to_json(self) -> dict[str, object]:
        """Return the entry in JSON.

        Keys: `path`, `name`, `state` (an `EntryState`), `file_bytes` (or null), `identity` (or null), `metadata`
        (see `metadata_json`; all null unless the state is `ok`), `problems` (see `problem_json`), `error` (or
        null), `writer` (`living`, `none` or `unknown` for a temporary file, else null).
        """
        return {
            "path": self.path,
            "name": self.name,
            "state": self.state.value,
            "file_bytes": self.file_bytes,
            "identity": self.identity,
            "metadata": metadata_json(self.metadata),
            "problems": [problem_json(problem) for problem in self.problems],
            "error": self.error,
            "writer": None if self.writer is None else self.writer.value,
        }


@dataclass(frozen=True)
class ListReport:
    """The checkpoints of one directory.

    Attributes:
        directory: The directory, as it was named.
        entries: Those with state `ok` by run id, epoch and step, as written inside, then by time of creation and
            name; a fact that is absent comes first. All others after them, by name.
    """

    directory: str
    entries: tuple[ListEntry, ...]

    def count(self, state: EntryState) -> int:
        """Return the number of files in this state."""
        return sum(entry.state is state for entry in self.entries)

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"ls/1"`), `directory`, `checked` (`"index"`: structure and index were read, the data were
        not), `entries` (array, see `ListEntry.to_json`), `counts` (object: state to number of files, all states).
        """
        return {
            "report": "ls/1",
            "directory": self.directory,
            "checked": "index",
            "entries": [entry.to_json() for entry in self.entries],
            "counts": {state.value: self.count(state) for state in EntryState},
        }


def list_directory(directory: str | os.PathLike[str]) -> ListReport:
    """Return the checkpoints that are directly in a directory.

    These are the files named `*.ckptfmt`, and the temporary files of writers that have not published yet or never
    will. Directories in it are not entered. Only the structure and the index of each file are read.

    Raises:
        StorageError: The directory cannot be listed.
    """
    directory = os.fspath(directory)
    entries = []
    for child in children(directory):
        if is_checkpoint(child):
            entries.append(_entry(str(child)))
        elif is_temporary(child):
            entries.append(ListEntry(str(child), EntryState.INCOMPLETE, size_of(child), writer=writer_of(child)))
    return ListReport(directory, tuple(sorted(entries, key=_order)))


def _entry(path: str) -> ListEntry:
    try:
        with Checkpoint.open(path) as checkpoint:
            size, facts, identity = checkpoint.file_bytes, checkpoint.metadata, checkpoint.identity
    except FormatError as error:
        return ListEntry(path, _STATE_OF[error.problems[0].kind], size_of(path), problems=error.problems)
    except StorageError as error:
        return ListEntry(path, EntryState.UNREADABLE, size_of(path), error=reason(error, path))
    return ListEntry(path, EntryState.OK, size, facts, identity)


_EARLIEST = datetime.min.replace(tzinfo=UTC)


def _order(entry: ListEntry) -> tuple[bool, str, int, int, datetime, str]:
    facts = entry.metadata
    return (
        entry.state is not EntryState.OK,
        facts.run_id or "",
        -1 if facts.epoch is None else facts.epoch,
        -1 if facts.step is None else facts.step,
        facts.created or _EARLIEST,
        entry.name,
    )
