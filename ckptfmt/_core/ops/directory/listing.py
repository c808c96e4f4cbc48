"""Which checkpoints are in this directory, and how far each training run is."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import groupby

from ckptfmt._core.catalog import choose_newest, resume_candidates, scan_all
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.ops.directory.checkpoint_directories import checkpoint_directories
from ckptfmt._core.ops.report_json import float_json, metadata_json, problem_json
from ckptfmt._core.runs.judged_by import judged_by
from ckptfmt._core.runs.metric_names import main_metric, mode_of
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import Mode, best_first
from ckptfmt._core.runs.scan import EXTENSION, distinct, distinct_bytes, place, reason
from ckptfmt._core.storage.base import Writer
from ckptfmt._core.storage.resolve import name_of, store_for
from ckptfmt.errors import CkptfmtError, FormatError, Problem, ProblemKind, StorageError, UnsafeInputError

__all__ = ["EntryState", "ListEntry", "ListReport", "Mark", "MetricCurve", "RunInfo", "list_directory"]


class EntryState(StrEnum):
    """What is known of a file from its structure and its index. The data are not read."""

    OK = "ok"
    """The file is complete and its index is sound."""
    INCOMPLETE = "incomplete"
    """Its end is missing, or it is a temporary file that was never published."""
    DAMAGED = "damaged"
    """Its structure or index is not what a writer wrote, or it is not a checkpoint."""
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


class Mark(StrEnum):
    """What is special about a checkpoint."""

    RESUME = "resume"
    """Training would resume from it, as far as its index shows (see `catalog`)."""
    NEWEST = "newest"
    """It is the newest of its run."""
    BEST = "best"
    """It is the best of its run by the metric that is looked at."""
    PINNED = "pinned"
    """It has a pin: retention does not remove it."""
    LINK = "link"
    """It is a symbolic link to another file."""


@dataclass(frozen=True)
class ListEntry:
    """One checkpoint of the directory: a file, or a directory.

    Attributes:
        path: The directory as it was named, joined with the file's name.
        state: Its state, in one word.
        file_bytes: Length of the file; None if unknown.
        metadata: The facts stored in it; all absent unless the state is `ok`.
        identity: Identity of the file (spec 12.1); None unless the state is `ok`, or if the format has none.
        problems: Everything that is wrong with the file, if it could be read.
        error: Why the file could not be read; None if it could.
        writer: For a temporary file, whether its writer is alive; None for a published file.
        marks: Marks such as `newest` and `best`.
        is_directory: Whether it is a directory that is one checkpoint.
    """

    path: str
    state: EntryState
    file_bytes: int | None = None
    metadata: Metadata = _NO_FACTS
    identity: str | None = None
    problems: tuple[Problem, ...] = ()
    error: str | None = None
    writer: Writer | None = None
    marks: tuple[Mark, ...] = ()
    is_directory: bool = False

    @property
    def name(self) -> str:
        """Name of the file in its directory."""
        return name_of(self.path)

    def to_json(self) -> dict[str, object]:
        """Return the entry in JSON.

        Keys: `path`, `name`, `state` (an `EntryState`), `file_bytes` (or null), `identity` (or null), `metadata`
        (see `metadata_json`; all null unless the state is `ok`), `problems` (see `problem_json`), `error` (or
        null), `writer` (`living`, `none` or `unknown` for a temporary file, else null), `marks` (array of `Mark`),
        `is_directory` (boolean).
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
            "marks": [mark.value for mark in self.marks],
            "is_directory": self.is_directory,
        }


@dataclass(frozen=True)
class MetricCurve:
    """The values of a metric over a run.

    Attributes:
        name: The metric.
        mode: Whether lower or higher is better; None if unknown.
        values: Its values in training order, from the checkpoints that have one.
        best: Path of the best checkpoint; None without a mode, or if no value is finite.
    """

    name: str
    mode: Mode | None
    values: tuple[float, ...]
    best: str | None

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `name`, `mode` (`min`, `max` or null), `values` (see `float_json`), `best` (or null)."""
        return {
            "name": self.name,
            "mode": self.mode,
            "values": [float_json(value) for value in self.values],
            "best": self.best,
        }


@dataclass(frozen=True)
class RunInfo:
    """The checkpoints of one run, or those that belong to no run.

    Attributes:
        run_id: The run; None for checkpoints that belong to no run.
        paths: Its usable checkpoints, the oldest first.
        newest: Path of the newest one; None for checkpoints without a run, step and epoch.
        curve: The values of the chosen metric; None if there is none.
    """

    run_id: str | None
    paths: tuple[str, ...]
    newest: str | None
    curve: MetricCurve | None

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `run_id`, `newest` (each may be null), `paths`, `curve` (`MetricCurve` or null)."""
        return {
            "run_id": self.run_id,
            "paths": list(self.paths),
            "newest": self.newest,
            "curve": None if self.curve is None else self.curve.to_json(),
        }


@dataclass(frozen=True)
class ListReport:
    """The checkpoints of one directory.

    Attributes:
        directory: The directory, as it was named.
        entries: Those with state `ok` by run id, generation, step, epoch, as written inside, then by time of creation
            and name; a fact that is absent comes first. All others after them, by name.
        runs: The runs of those with state `ok`, in the same order.
        total_bytes: Length of all files together; a file that has several names here, such as links, counts once.
    """

    directory: str
    entries: tuple[ListEntry, ...]
    runs: tuple[RunInfo, ...] = ()
    total_bytes: int = 0

    def count(self, state: EntryState) -> int:
        """Return the number of files in this state."""
        return sum(entry.state is state for entry in self.entries)

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"ls/1"`), `directory`, `checked` (`"index"`: structure and index were read, the data were
        not), `entries` (array, see `ListEntry.to_json`), `runs` (array, see `RunInfo.to_json`), `total_bytes` (a file
        that has several names here counts once), `counts` (object: state to number of files, all states).
        """
        return {
            "report": "ls/1",
            "directory": self.directory,
            "checked": "index",
            "entries": [entry.to_json() for entry in self.entries],
            "runs": [run.to_json() for run in self.runs],
            "total_bytes": self.total_bytes,
            "counts": {state.value: self.count(state) for state in EntryState},
        }


def list_directory(
    directory: str | os.PathLike[str],
    *,
    metric: str | None = None,
    mode: Mode | None = None,
    inert: Collection[str] = (),
) -> ListReport:
    """Return the checkpoints that are directly in a directory.

    These are the files named `*.ckptfmt`, `*.pth` and `*.pt`, temporary files that are not published yet or never will
    be, and directories such as `checkpoint-500` of Hugging Face's Trainer or Accelerate. No other subdirectories are
    searched. Only structure and index of each file are read.

    Args:
        directory: The directory.
        metric: The metric to report; None for the one that the run keeps its best checkpoints by or, if it records
            none, the most likely one.
        mode: Whether lower or higher is better; None if the run's record or else the metric's name decides.
        inert: See `interop.opening.open_tensors`.

    Raises:
        StorageError: The directory cannot be listed.
    """
    directory = os.fspath(directory)
    resumable = scan_all(directory, inert=inert)
    directories = checkpoint_directories(directory, inert=inert)
    if any(found.path == directory for found in directories):
        resumable = tuple(file for file in resumable if file.name.endswith(EXTENSION))  # the others are parts of it
    files = (*resumable, *directories)
    usable = sorted((file for file in files if file.usable), key=_order)
    groups = groupby(usable, key=lambda file: file.run_id)
    runs = tuple(_run(run_id, list(group), metric, mode) for run_id, group in groups)
    unfinished = [
        ListEntry(file.path, EntryState.INCOMPLETE, file.nbytes, writer=file.writer)
        for file in store_for(directory).unfinished()
        if file.cut or file.target.endswith(EXTENSION)  # of a name that is cut, the extension is not known
    ]
    others = [*(_unusable(file) for file in files if not file.usable), *unfinished]
    others.sort(key=lambda entry: entry.name)
    total = distinct_bytes(files) + sum(entry.file_bytes or 0 for entry in unfinished)
    resumed = choose_newest(resume_candidates(resumable), lambda file: file).file
    entries = [*(_entry(file, runs, resumed) for file in usable), *others]
    paths = {file.path for file in directories}
    marked = (replace(entry, is_directory=True) if entry.path in paths else entry for entry in entries)
    return ListReport(directory, tuple(marked), runs, total)


def _order(file: CheckpointReference) -> tuple[bool, str, tuple[int, int, int, datetime], str]:
    return (file.run_id is not None, file.run_id or "", place(file.metadata), file.name)


def _entry(file: CheckpointReference, runs: Iterable[RunInfo], resumed: CheckpointReference | None) -> ListEntry:
    marks = [Mark.RESUME] if resumed is not None and resumed.path == file.path else []
    marks += [Mark.NEWEST for run in runs if run.newest == file.path]
    marks += [Mark.BEST for run in runs if run.curve is not None and run.curve.best == file.path]
    marks += _marks(file)
    return ListEntry(file.path, EntryState.OK, file.file_bytes, file.metadata, file.identity, marks=tuple(marks))


def _marks(file: CheckpointReference) -> list[Mark]:
    return [*([Mark.PINNED] if file.pinned else []), *([Mark.LINK] if file.link else [])]


def _unusable(file: CheckpointReference) -> ListEntry:
    error = file.error
    assert error is not None
    marks = tuple(_marks(file))
    if isinstance(error, FormatError):
        state = _STATE_OF[error.problems[0].kind]
        return ListEntry(file.path, state, file.file_bytes, problems=error.problems, marks=marks)
    return ListEntry(file.path, _state_of(error), file.file_bytes, error=reason(error, file.path), marks=marks)


def _state_of(error: CkptfmtError) -> EntryState:
    return EntryState.UNREADABLE if isinstance(error, StorageError | UnsafeInputError) else EntryState.DAMAGED


def _run(run_id: str | None, files: Sequence[CheckpointReference], metric: str | None, mode: Mode | None) -> RunInfo:
    """Return the report of one run, given its checkpoints, the oldest first."""
    once = distinct(files)
    training = [file.metadata for file in once]
    names = {name for facts in training for name in facts.metrics or ()}
    recorded = next((found for facts in reversed(training) if (found := judged_by(facts)) is not None), None)
    chosen = metric or main_metric(training)
    if recorded is not None and recorded[0] in names and metric in (None, recorded[0]):
        chosen, mode = recorded[0], mode or recorded[1]
    in_training = [
        file for file in once if run_id is not None or (file.metadata.step, file.metadata.epoch) != (None, None)
    ]
    return RunInfo(
        run_id=run_id,
        paths=tuple(file.path for file in files),
        newest=in_training[-1].path if in_training else None,
        curve=_curve(once, chosen, mode or mode_of(chosen)) if chosen in names and chosen is not None else None,
    )


def _curve(files: Sequence[CheckpointReference], name: str, mode: Mode | None) -> MetricCurve:
    values = [value for file in files if (value := (file.metadata.metrics or {}).get(name)) is not None]
    best = best_first(reversed(files), name, mode)[:1] if mode is not None else []
    return MetricCurve(name, mode, tuple(values), best[0].path if best else None)
