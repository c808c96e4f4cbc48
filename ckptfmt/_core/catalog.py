"""The checkpoints of a directory whatever their format, and which of them a training resumes from.

`Checkpointer.resume` and `ckptfmt latest` decide by the same functions: one takes what the other prints.

Two kinds of checkpoints count:

- those of the run: files named `*.ckptfmt` that carry its id;
- those of a loop that notes no run, if they say how many epochs are finished: `.pth` and `.pt` files, as PyTorch's
  documentation has them, and, where no checkpoint belongs to a run, `*.ckptfmt` without a run id.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from functools import partial
from typing import Generic, TypeVar

from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.scan import (
    EXTENSION,
    NATIVE_ONLY,
    Look,
    choose_run,
    merged,
    newest_first,
    run_ids,
    scan,
    verified,
)
from ckptfmt._core.storage.local.retries import Patience, Trouble, trouble_of
from ckptfmt._core.storage.resolve import is_gone
from ckptfmt.errors import CkptfmtError, ForeignFileError, FormatError, ProblemKind, StorageError, UnsupportedFileError

__all__ = [
    "OTHER_EXTENSIONS",
    "Candidates",
    "Choice",
    "Finding",
    "choose_newest",
    "choose_settled",
    "finding_of",
    "resume_candidates",
    "scan_all",
    "verified_all",
]

T = TypeVar("T")

OTHER_EXTENSIONS = (".pth", ".pt")
"""Names under which training loops keep checkpoints of another format."""


@dataclass(frozen=True)
class Candidates:
    """The checkpoints of a directory, as a training sees them that resumes there.

    Attributes:
        run_id: The run; None if none was named and no checkpoint belongs to one.
        files: What it may resume from, the newest first. One with an error is that far in the training, and whether
            it can be used is not known.
        unplaced: What cannot be used and does not tell how far it is, by name. If its metadata have 0 epochs, it is
            known to be no checkpoint of a training.
        runless: What belongs to no run and does not say how many epochs are finished, the newest first.
        other_runs: Ids of the other runs, sorted.
    """

    run_id: str | None
    files: tuple[CheckpointReference, ...] = ()
    unplaced: tuple[CheckpointReference, ...] = ()
    runless: tuple[CheckpointReference, ...] = ()
    other_runs: tuple[str, ...] = ()


def resume_candidates(
    files: Collection[CheckpointReference], run_id: str | None = None, now: datetime | None = None
) -> Candidates:
    """Return which of the files of a directory a training may resume from, the newest first.

    Args:
        files: What `scan_all` found.
        run_id: The run; None: the one whose checkpoint was created last (`runs.scan.choose_run`).
        now: The present, aware; the clock's if None.
    """
    if run_id is None:
        run_id = choose_run(files, now)
    runs = run_ids(files)
    of_run = newest_first(files, run_id) if run_id is not None else ()
    loose = [file for file in files if file.run_id is None and _counts_epochs(file)]
    if of_run:
        loose = [file for file in loose if not file.name.endswith(EXTENSION)]
    elif runs:
        loose = []
    chosen = tuple(merged(of_run, loose))
    paths = {file.path for file in chosen}
    return Candidates(
        run_id=run_id,
        files=chosen,
        unplaced=tuple(file for file in files if not file.usable and not _counts_epochs(file)),
        runless=tuple(file for file in newest_first(files, None) if file.path not in paths),
        other_runs=tuple(run for run in runs if run != run_id),
    )


class Finding(Enum):
    """What an error says of a checkpoint."""

    USELESS = auto()
    """It is known to be no whole checkpoint: damaged, cut off, or something else."""
    UNREADABLE = auto()
    """The device fails to give some of its bytes, again and again."""
    GONE = auto()
    """It was removed or replaced meanwhile."""
    UNDECIDED = auto()
    """It may be sound: it was refused, needs a newer reader, or could not be read for another reason."""


def finding_of(file: CheckpointReference) -> Finding:
    """Return what is known of a file with an error."""
    match file.error:
        case StorageError() as error:
            return _finding_of_system(error, file.path)
        case FormatError(problems=problems):
            unsupported = any(problem.kind is ProblemKind.UNSUPPORTED for problem in problems)
            return Finding.UNDECIDED if unsupported else Finding.USELESS
        case UnsupportedFileError():
            return Finding.UNDECIDED
        case ForeignFileError():
            return Finding.USELESS
    return Finding.UNDECIDED


def _finding_of_system(error: StorageError, path: str) -> Finding:
    match trouble_of(error):
        case Trouble.CHANGED:
            return Finding.GONE
        case Trouble.ABSENT:
            return Finding.GONE if is_gone(path) else Finding.USELESS
        case Trouble.DEVICE:
            return Finding.UNREADABLE
        case Trouble.UNKNOWN:
            return Finding.UNDECIDED


@dataclass(frozen=True)
class Choice(Generic[T]):
    """What came of going through the candidates, the newest first.

    Attributes:
        file: The one that can be used; None if there is none, or it is not known which.
        result: What `use` returned for it.
        skipped: Each with an error: newer ones that cannot be used, and all that do not tell how new they are.
        undecided: Those among them that may be sound and newer. If there are any, nothing is chosen.
        changed: Whether a candidate was removed or replaced meanwhile: look at the directory again.
    """

    file: CheckpointReference | None
    result: T | None
    skipped: tuple[CheckpointReference, ...]
    undecided: tuple[CheckpointReference, ...] = ()
    changed: bool = False


def choose_newest(candidates: Candidates, use: Callable[[CheckpointReference], T]) -> Choice[T]:
    """Return the newest of the candidates that can be used. One that may be sound is never passed over.

    A file of which the device fails to give some bytes counts as damaged if another one can be read, and only then.

    Args:
        candidates: The candidates.
        use: Uses one. Raises a CkptfmtError if that is not possible.
    """
    passed = list(candidates.unplaced)
    undecided = [file for file in passed if finding_of(file) is Finding.UNDECIDED and file.metadata.epoch is None]
    changed = False
    for file in candidates.files if not undecided else ():
        if file.error is None:
            try:
                return Choice(file, use(file), tuple(passed))
            except CkptfmtError as error:
                file = replace(file, error=error)
        finding = finding_of(file)
        changed = changed or finding is Finding.GONE
        passed.append(file)
        if finding is Finding.UNDECIDED:
            undecided.append(file)
            break
    undecided = undecided or [file for file in passed if finding_of(file) is Finding.UNREADABLE]
    return Choice(None, None, tuple(passed), tuple(undecided), changed)


def choose_settled(
    candidates: Candidates, use: Callable[[CheckpointReference], T], look_again: Callable[[], Candidates]
) -> tuple[Candidates, Choice[T]]:
    """As `choose_newest`; if a candidate was removed or replaced meanwhile, look at the directory again.

    Retention removes old checkpoints when there are newer ones: these are to be found then.

    Args:
        candidates: The candidates.
        use: See `choose_newest`.
        look_again: Returns the candidates as they are now.

    Returns:
        The candidates that were chosen from in the end, and what came of it.
    """
    for _ in range(_MOST_LOOKS):
        choice = choose_newest(candidates, use)
        if choice.file is not None or not choice.changed:
            break
        candidates = look_again()
    return candidates, choice


_MOST_LOOKS = 5


def _counts_epochs(file: CheckpointReference) -> bool:
    return (file.metadata.epoch or 0) > 0


def _look_at_other(path: str, *, inert: Collection[str]) -> CheckpointReference:
    from ckptfmt._core.interop.readers.pth_checkpoints import look_at_pth  # most directories have no such file

    return look_at_pth(path, inert=inert)


def scan_all(
    directory: str | os.PathLike[str],
    known: Collection[CheckpointReference] = (),
    *,
    inert: Collection[str] = (),
    patience: Patience | None = None,
) -> tuple[CheckpointReference, ...]:
    """Return the checkpoints that are directly in a directory, of any format, by name (see `runs.scan.scan`).

    Args:
        directory: The directory.
        known: See `runs.scan.scan`.
        inert: See `pth.reading.read_state`.
        patience: See `runs.scan.scan`.

    Raises:
        StorageError: The directory cannot be listed.
    """
    looks: dict[str, Look] = {**NATIVE_ONLY, **dict.fromkeys(OTHER_EXTENSIONS, partial(_look_at_other, inert=inert))}
    return scan(directory, known, looks, patience)


def verified_all(
    file: CheckpointReference, progress: Callable[[int], None] | None = None, *, inert: Collection[str] = ()
) -> CheckpointReference:
    """Return what is known of a usable checkpoint after every byte of it was read (see `runs.scan.verified`).

    A file without digests is read to its end: `verified` then says no more than that it can be.

    Args:
        file: The checkpoint.
        progress: Called with the number of bytes that were read.
        inert: See `pth.reading.read_state`.
    """
    if file.path.endswith(EXTENSION):
        return verified(file, progress)
    from ckptfmt._core.interop.readers.pth_checkpoints import verified_pth

    return verified_pth(file, progress, inert=inert)
