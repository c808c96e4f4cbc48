"""Choice of the checkpoint to resume from, by the content of files, never by names or file times (spec 14.5).

`catalog` determines which checkpoints count, in which order, and what an error means:

- A damaged checkpoint is skipped, reported, and quarantined (see below).
- A checkpoint that may be sound is never skipped: a file that is refused, that needs a newer reader, or that cannot be
  read even after several tries. Then nothing is resumed, and a person must decide (`UndecidedError`).
- A file with bytes that the device cannot read, even after several tries, counts as damaged if another checkpoint can
  be read. It is not renamed, and this process removes no older checkpoint either.

Quarantine renames a checkpoint to `NAME.damaged`, so that it neither comes up at every start nor blocks the next save.
It applies only

- to checkpoints that were read twice, the second time from the disk, and were damaged or truncated both times;
- to checkpoints of this run or, if the run is unknown, in a directory without checkpoints of other runs;
- to checkpoints without a visible writer that have not changed between the two reads;
- once another checkpoint has been read to its last byte, so that a run whose checkpoints are all damaged stays as it
  is, for people to examine.

Files of `torch.save` are never quarantined: nothing proves their damage.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar

from ckptfmt._core.catalog import (
    OTHER_EXTENSIONS,
    Candidates,
    Choice,
    Finding,
    choose_newest,
    choose_settled,
    finding_of,
    resume_candidates,
    scan_all,
)
from ckptfmt._core.interop.readers.pth_checkpoints import look_at_pth
from ckptfmt._core.runs.quarantine import forget_cached, is_at_rest, quarantine
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.scan import EXTENSION, look_at_native, look_into, reason, run_ids
from ckptfmt._core.storage.local.retries import Patience, Trouble, trouble_of
from ckptfmt._core.storage.resolve import directory_of, is_directory
from ckptfmt._core.training.notices import notify
from ckptfmt.errors import (
    CkptfmtError,
    FormatError,
    ProblemKind,
    ResumeError,
    SkippedFile,
    StorageError,
    UndecidedError,
    UsageError,
)

__all__ = ["Resume", "Selected", "Selection", "choose", "new_patience", "of_no_run", "select", "undecided_if_unknown"]

T = TypeVar("T")

Resume = str | os.PathLike[str]
"""`auto`, `must`, `never`, or a path."""


@dataclass(frozen=True)
class Selection:
    """The checkpoints that a run may resume from.

    Attributes:
        directory: Their directory.
        candidates: The checkpoints, newest first, and the other files of the directory.
        inert: Names in pickles to keep as inert data (see `pth.reading.read_state`).
        required: Whether the absence of a checkpoint is an error.
        exact: Whether only this one file may be used.
        tidy: Whether to quarantine damaged checkpoints.
    """

    directory: str
    candidates: Candidates
    inert: Collection[str] = ()
    required: bool = False
    exact: bool = False
    tidy: bool = False


@dataclass(frozen=True)
class Selected(Generic[T]):
    """The checkpoint that a run resumes from.

    Attributes:
        file: Reference to the checkpoint.
        checkpoint: The checkpoint, verified and opened.
        skipped: Unusable checkpoints that are newer or of unknown age. The reason of a quarantined one ends with its
            new name.
        unreadable: Newer checkpoints with bytes that the device cannot read, path -> error.
    """

    file: CheckpointReference
    checkpoint: T
    skipped: tuple[SkippedFile, ...] = ()
    unreadable: Mapping[str, CkptfmtError] = field(default_factory=dict)


def new_patience() -> Patience:
    """Return the patience of one resume, which reports each retry."""
    return Patience(lambda error: notify(f"{error}; trying again"))


def select(
    directory: str | os.PathLike[str],
    run_id: str | None = None,
    resume: Resume = "auto",
    *,
    patience: Patience,
    inert: Collection[str] = (),
    now: datetime | None = None,
) -> Selection:
    """Return the checkpoints to resume from (see `catalog`); of native ones, only the indexes are read.

    Args:
        directory: The directory of the run.
        run_id: Id of the run; None for the run of the checkpoint created last (`runs.scan.choose_run`).
        resume: `auto`: the newest sound checkpoint, or none if the directory has no checkpoint. `must`: the same, but
            the absence of a checkpoint is an error. `never`: none. Path of a file: exactly this file. Path of a
            directory: its newest sound checkpoint, which must exist.
        patience: How often to retry failed reads.
        inert: Names in pickles to keep as inert data instead of refusing them.
        now: Current time, with a time zone; None for the time of the clock.

    Raises:
        StorageError: The directory cannot be listed, or the path is neither a file nor a directory.
        CkptfmtError: The requested file is not valid.
        ResumeError: The requested file is not a checkpoint of a training loop.
        UsageError: `never`, and the named run already has checkpoints.
    """
    directory = os.fspath(directory)
    if resume == "never":
        return _none(directory, run_id, patience)
    if resume in ("auto", "must"):
        newest = _newest(directory, run_id, inert, patience, now)
        return replace(newest, required=resume == "must", tidy=True)
    path = os.fspath(resume)
    if is_directory(path):
        return replace(_newest(path, run_id, inert, patience, now), required=True)
    return _exactly(path, inert, patience)


def choose(selection: Selection, use: Callable[[CheckpointReference], T], patience: Patience) -> Selected[T] | None:
    """Return the newest sound checkpoint; None if there are no checkpoints and none is required.

    Of several processes that resume together, only one should call this: it quarantines damaged checkpoints.

    Args:
        selection: The checkpoints to choose from.
        use: Verifies and opens a checkpoint. Raises a CkptfmtError if it cannot.
        patience: How often to retry failed reads.

    Raises:
        UndecidedError: A checkpoint that may be the newest cannot be judged.
        ResumeError: None of the checkpoints is usable, or there are none and one is required.
        CkptfmtError: The requested file cannot be used.
    """
    there = selection.candidates

    def look_again() -> Candidates:
        return _newest(selection.directory, there.run_id, selection.inert, patience, None).candidates

    if selection.exact:
        choice = choose_newest(there, use)
    else:
        there, choice = choose_settled(there, use, look_again)
        selection = replace(selection, candidates=there)
    if choice.file is not None and choice.result is not None:
        return _selected(choice, choice.file, choice.result, selection)
    passed = choice.skipped
    if selection.exact and passed and not choice.undecided:
        assert passed[0].error is not None  # otherwise it would not have been skipped
        raise passed[0].error
    if choice.undecided:
        raise UndecidedError(_undecided(selection), [_skipped(file) for file in choice.undecided])
    if passed:
        raise ResumeError(
            f"{selection.directory}: no usable checkpoint, and no new run is started next to unusable ones; move them "
            "away to start a new run, or pass the run_id= of another run:",
            [_skipped(file) for file in passed],
        )
    if selection.required:
        raise ResumeError(_nothing(selection))
    return None


@contextmanager
def undecided_if_unknown(path: str) -> Iterator[None]:
    """Turn an operating system error, which proves nothing about the checkpoints, into one that stops restarts.

    Raises:
        UndecidedError: An operating system error occurred.
    """
    try:
        yield
    except StorageError as error:
        if trouble_of(error) in (Trouble.UNKNOWN, Trouble.DEVICE):
            raise UndecidedError(f"{path}: cannot determine the checkpoint to resume from: {error}") from error
        raise


def _none(directory: str, run_id: str | None, patience: Patience) -> Selection:
    files = scan_all(directory, patience=patience)
    runs = run_ids(files)
    if run_id in runs:
        raise UsageError(
            f'{directory}: run {run_id} has checkpoints here, and resume="never" would start a second run with that '
            "id; pass another run_id= or directory"
        )
    undecided = [file for file in files if file.error is not None and finding_of(file) is Finding.UNDECIDED]
    if run_id is not None and undecided:
        skipped = [_skipped(file) for file in undecided]
        raise UndecidedError(f"{directory}: cannot determine whether run {run_id} has checkpoints here:", skipped)
    return Selection(directory, Candidates(run_id, other_runs=runs))


def _exactly(path: str, inert: Collection[str], patience: Patience) -> Selection:
    look = partial(look_at_pth, inert=inert) if path.endswith(OTHER_EXTENSIONS) else look_at_native
    try:
        # Opening a missing file or a directory raises the specific error.
        file = patience(lambda: look_into(path, look) or look(path), path)
    except StorageError as error:
        file = CheckpointReference(path, error=error)
    if file.usable and file.identity is None and not file.metadata.epoch:
        raise ResumeError(
            f"{path}: not a checkpoint of a training loop, which is a dict with an int `epoch` and the states; to "
            "start from weights alone, use warm_start()"
        )
    candidates = Candidates(file.run_id, (file,))
    return Selection(directory_of(path), candidates, inert, required=True, exact=True)


def _newest(
    directory: str, run_id: str | None, inert: Collection[str], patience: Patience, now: datetime | None
) -> Selection:
    files = scan_all(directory, inert=inert, patience=patience)
    doubtful = [file for file in files if _is_damaged(file)]
    if doubtful:
        for file in doubtful:
            forget_cached(file)
        known = [file for file in files if file not in doubtful]
        files = scan_all(directory, known, inert=inert, patience=patience)
    return Selection(directory, resume_candidates(files, run_id, now), inert)


def _selected(choice: Choice[T], file: CheckpointReference, checkpoint: T, selection: Selection) -> Selected[T]:
    """Return the choice and a report of the others, after quarantining those that may be."""
    unreadable = {file.path: file for file in choice.skipped if finding_of(file) is Finding.UNREADABLE}
    for other in unreadable.values():
        notify(
            f"{other.path}: CANNOT BE READ: falling back to {file.path}; this process renames and removes none "
            f"of the present checkpoints; check the disk: {_skipped(other).reason}",
            logging.ERROR,
        )
    skipped = [*_report(choice.skipped, selection), *of_no_run(selection.candidates)]
    errors = {path: other.error for path, other in unreadable.items() if other.error is not None}
    return Selected(file, checkpoint, tuple(skipped), errors)


def _report(passed_over: Sequence[CheckpointReference], selection: Selection) -> list[SkippedFile]:
    """Quarantine the checkpoints that may be, and return a report of all."""
    skipped = []
    for file in passed_over:
        note = _skipped(file)
        if selection.tidy and _may_be_set_aside(file, selection.candidates):
            try:
                note = replace(note, reason=f"{note.reason}; quarantined as {quarantine(file)}")
            except StorageError as error:
                note = replace(note, reason=f"{note.reason}; {reason(error, file.path)}")
        skipped.append(note)
    return skipped


def of_no_run(candidates: Candidates) -> tuple[SkippedFile, ...]:
    """Return a report of training checkpoints that do not count because they belong to no run."""
    skipped = []
    for file in candidates.runless:
        if file.metadata.epoch or (file.metadata.step and file.name.endswith(EXTENSION)):
            why = "no run id" + ("" if file.metadata.epoch else " and no finished epochs recorded")
            skipped.append(SkippedFile(file.path, why))
    return tuple(skipped)


def _may_be_set_aside(file: CheckpointReference, candidates: Candidates) -> bool:
    ours = file.run_id is not None or not candidates.other_runs
    return ours and _is_damaged(file) and is_at_rest(file)


def _is_damaged(file: CheckpointReference) -> bool:
    """Return whether a file is proven to be incomplete or damaged, rather than merely unreachable."""
    if not isinstance(file.error, FormatError) or file.name.endswith(OTHER_EXTENSIONS):
        return False
    return all(problem.kind is not ProblemKind.UNSUPPORTED for problem in file.error.problems)


def _skipped(file: CheckpointReference) -> SkippedFile:
    assert file.error is not None  # otherwise it would not have been skipped
    return SkippedFile(file.path, reason(file.error, file.path))


def _undecided(selection: Selection) -> str:
    if selection.exact:
        return (
            "cannot determine whether the checkpoint is sound; nothing was changed; make it readable or pass another:"
        )
    return (
        f"{selection.directory}: cannot determine the newest checkpoint; nothing was changed; make these "
        "readable or move them away, or pass the one to resume from: resume(PATH):"
    )


def _nothing(selection: Selection) -> str:
    run_id, others = selection.candidates.run_id, selection.candidates.other_runs
    run = "" if run_id is None else f" of run {run_id}"
    there = f"; found checkpoints of other runs: {', '.join(others)}" if others else ""
    return f"{selection.directory}: no checkpoint{run} to resume from{there}"
