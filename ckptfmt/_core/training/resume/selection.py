"""Which checkpoint a run resumes from: decided by what is written inside, never by names or file times (spec 14.5).

`catalog` says which ones count, in which order, and what an error says of one:

- A damaged one is passed over, reported, and set aside (see below).
- What may be sound is never passed over: a file that is refused, that needs a newer reader, or that cannot be read,
  although that was tried several times. Then nothing is resumed, and a person has to look (`UndecidedError`).
- A file of which the device does not give some bytes, however often it is asked, counts as damaged if another
  checkpoint can be read. It is not renamed, and this process removes no older one either.

Set aside is renamed to `NAME.damaged`, so that a damaged checkpoint neither comes up at every start nor is in the way
of the next save. That is done to

- only checkpoints that were read twice, the second time from the disk, and were damaged or cut short both times;
- of this run; or, if even that is not known, in a directory in which no other run has checkpoints;
- that nobody is seen to write to, and that have not changed in between;
- and only once another checkpoint has been read to its last byte, so that a run whose checkpoints are all damaged is
  left as it is, for people to look at.

Files of `torch.save` are never set aside: nothing proves their damage.
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
        directory: Where they are.
        candidates: The checkpoints, the newest first, and the others that are there.
        inert: Names in pickles to keep as inert data (see `pth.reading.read_state`).
        required: Whether it is an error if there is none.
        exact: Whether it is this one file or none.
        tidy: Whether damaged ones are to be set aside.
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
        file: What is known of it.
        checkpoint: The same, verified and opened.
        skipped: Newer ones, and files whose age is not known, that could not be used. The reason ends with the new name
            if one was set aside.
        unreadable: Newer ones of which the device does not give some bytes, by path, and why.
    """

    file: CheckpointReference
    checkpoint: T
    skipped: tuple[SkippedFile, ...] = ()
    unreadable: Mapping[str, CkptfmtError] = field(default_factory=dict)


def new_patience() -> Patience:
    """Return the patience of one resume: it tells what it waits for."""
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
    """Return the checkpoints to resume from (see `catalog`); of those of this format only the indexes are read.

    Args:
        directory: The directory of the run.
        run_id: The run; None for the one of the checkpoint that was created last (`runs.scan.choose_run`).
        resume: `auto`: the newest that verifies, or none if there is no checkpoint. `must`: the same, and no checkpoint
            is an error. `never`: none. A path to a file: exactly this one. A path to a directory: the newest there,
            which must be.
        patience: How often to try what cannot be read.
        inert: Names in pickles to keep as inert data instead of refusing them.
        now: The present, aware; the clock's if None.

    Raises:
        StorageError: The directory cannot be listed, or the path does not lead to a file or directory.
        CkptfmtError: The one file that was asked for is not valid.
        ResumeError: It is not a checkpoint of a training loop.
        UsageError: `never`, and the run that was named has checkpoints already.
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
    """Return the newest checkpoint that verifies; None if there is none at all, which is fine unless it is required.

    Of several processes that resume together, only one should call this: it sets damaged checkpoints aside.

    Args:
        selection: What there is to choose from.
        use: Verifies and opens a checkpoint. Raises a CkptfmtError if that is not possible.
        patience: How often to try what cannot be read.

    Raises:
        UndecidedError: One that may be the newest cannot be judged.
        ResumeError: There are some and none can be used, or there is none and it is required.
        CkptfmtError: The one file that was asked for cannot be used.
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
        assert passed[0].error is not None  # it would not have been passed over
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
    """Turn an error of the system, which says nothing about the checkpoints, into one that ends restarts.

    Raises:
        UndecidedError: There was such an error.
    """
    try:
        yield
    except StorageError as error:
        if trouble_of(error) in (Trouble.UNKNOWN, Trouble.DEVICE):
            raise UndecidedError(f"{path}: what there is to resume from is not known: {error}") from error
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
        raise UndecidedError(f"{directory}: whether run {run_id} has checkpoints here is not known:", skipped)
    return Selection(directory, Candidates(run_id, other_runs=runs))


def _exactly(path: str, inert: Collection[str], patience: Patience) -> Selection:
    look = partial(look_at_pth, inert=inert) if path.endswith(OTHER_EXTENSIONS) else look_at_native
    try:
        # Of what is gone, or a directory, opening it says which.
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
    """Return what was chosen and a report of the others, after setting aside what may be."""
    unreadable = {file.path: file for file in choice.skipped if finding_of(file) is Finding.UNREADABLE}
    for other in unreadable.values():
        notify(
            f"{other.path}: CANNOT BE READ: falling back to {file.path}; this process renames nothing and removes none "
            f"of the present checkpoints; check the disk: {_skipped(other).reason}",
            logging.ERROR,
        )
    skipped = [*_report(choice.skipped, selection), *of_no_run(selection.candidates)]
    errors = {path: other.error for path, other in unreadable.items() if other.error is not None}
    return Selected(file, checkpoint, tuple(skipped), errors)


def _report(passed_over: Sequence[CheckpointReference], selection: Selection) -> list[SkippedFile]:
    """Set aside what may be, and return a report of all."""
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
    """Return a report of checkpoints of a training that do not count because they belong to no run."""
    skipped = []
    for file in candidates.runless:
        if file.metadata.epoch or (file.metadata.step and file.name.endswith(EXTENSION)):
            why = "it has no run id" + ("" if file.metadata.epoch else " and records no finished epochs")
            skipped.append(SkippedFile(file.path, why))
    return tuple(skipped)


def _may_be_set_aside(file: CheckpointReference, candidates: Candidates) -> bool:
    ours = file.run_id is not None or not candidates.other_runs
    return ours and _is_damaged(file) and is_at_rest(file)


def _is_damaged(file: CheckpointReference) -> bool:
    """Say whether a file is known to be no whole checkpoint, rather than only out of reach."""
    if not isinstance(file.error, FormatError) or file.name.endswith(OTHER_EXTENSIONS):
        return False
    return all(problem.kind is not ProblemKind.UNSUPPORTED for problem in file.error.problems)


def _skipped(file: CheckpointReference) -> SkippedFile:
    assert file.error is not None  # it would not have been passed over
    return SkippedFile(file.path, reason(file.error, file.path))


def _undecided(selection: Selection) -> str:
    if selection.exact:
        return (
            "whether the checkpoint is sound is not known, nothing was changed; make it readable or pass another one:"
        )
    return (
        f"{selection.directory}: which checkpoint is the newest is not known, and nothing was changed; make these "
        "readable or move them away, or pass the one to resume from: resume(PATH):"
    )


def _nothing(selection: Selection) -> str:
    run_id, others = selection.candidates.run_id, selection.candidates.other_runs
    run = "" if run_id is None else f" of run {run_id}"
    there = f"; found checkpoints of other runs: {', '.join(others)}" if others else ""
    return f"{selection.directory}: no checkpoint{run} to resume from{there}"
