"""Which checkpoint a run goes on from: decided by what is written inside, never by names or file times (spec 14.5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ckptfmt.errors import FormatError, StorageError
from ckptfmt.format.index import Metadata
from ckptfmt.reader import Checkpoint
from ckptfmt.torch import io
from ckptfmt.torch.failures import ResumeError
from ckptfmt.torch.report import SkippedFile

__all__ = ["Selection", "VerifiedCheckpoint", "load_newest", "select_checkpoints"]

_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Selection:
    """The checkpoints of one run in a directory.

    Attributes:
        directory: The directory.
        run_id: The run; None if none was asked for and no readable checkpoint names one.
        candidates: Its checkpoints whose index is sound, the newest first.
        unusable: Files that tell of no run: damaged in the index, truncated, or unreadable.
        other_runs: The ids of the other runs found, sorted.
    """

    directory: str
    run_id: str | None
    candidates: tuple[str, ...]
    unusable: tuple[SkippedFile, ...]
    other_runs: tuple[str, ...]


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A checkpoint that was read, every byte of it verified.

    Attributes:
        path: The file.
        metadata: The facts written inside.
        state: The state by component.
        skipped: Newer ones, and files whose age can't be told, that could not be used.
    """

    path: str
    metadata: Metadata
    state: dict[str, Any]
    skipped: tuple[SkippedFile, ...]


def select_checkpoints(directory: str, run_id: str | None = None) -> Selection:
    """Return the checkpoints to resume from: files named `*.ckptfmt`, of which only the indexes are read.

    The run is `run_id` if given, else the run of the checkpoint that was created last, as it says itself. Within the
    run the newest checkpoint is the one with the most steps, then the most epochs, then the one created last. A
    checkpoint without a run id belongs to no run.

    Raises:
        StorageError: The directory cannot be listed.
    """
    facts: dict[str, Metadata] = {}
    unusable = []
    for path in _checkpoint_files(directory):
        try:
            with Checkpoint.open(path) as checkpoint:
                if checkpoint.metadata.run_id is not None:
                    facts[path] = checkpoint.metadata
        except (FormatError, StorageError) as error:
            unusable.append(_skipped(path, error))
    if run_id is None and facts:
        run_id = max(facts.values(), key=lambda metadata: metadata.created or _EARLIEST).run_id
    ours = [path for path, metadata in facts.items() if metadata.run_id == run_id]
    return Selection(
        directory=directory,
        run_id=run_id,
        candidates=tuple(sorted(ours, key=lambda path: _age(facts[path]), reverse=True)),
        unusable=tuple(unusable),
        other_runs=tuple(sorted({str(metadata.run_id) for metadata in facts.values()} - {str(run_id)})),
    )


def load_newest(selection: Selection) -> VerifiedCheckpoint | None:
    """Return the newest checkpoint that verifies; None if there is none at all.

    Raises:
        ResumeError: There are some, and none can be used.
    """
    skipped: list[SkippedFile] = []
    for path in selection.candidates:
        try:
            with io.open(path) as checkpoint:
                state = io.read_state(checkpoint)
                return VerifiedCheckpoint(path, checkpoint.metadata, state, (*skipped, *selection.unusable))
        except (FormatError, StorageError) as error:
            skipped.append(_skipped(path, error))
    skipped.extend(selection.unusable)
    if skipped:
        raise ResumeError(selection.directory, skipped)
    return None


def _checkpoint_files(directory: str) -> list[str]:
    try:
        return sorted(str(path) for path in Path(directory).iterdir() if path.suffix == ".ckptfmt")
    except OSError as error:
        raise StorageError(f"{directory}: cannot be listed: {error.strerror or error}") from error


def _skipped(path: str, error: FormatError | StorageError) -> SkippedFile:
    return SkippedFile(path, str(error).removeprefix(f"{path}: "))


def _age(metadata: Metadata) -> tuple[int, int, datetime]:
    return (metadata.step or 0, metadata.epoch or 0, metadata.created or _EARLIEST)
