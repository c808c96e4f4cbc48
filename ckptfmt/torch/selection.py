"""Which checkpoint a run goes on from: decided by what is written inside, never by names or file times (spec 14.5).

A damaged newest checkpoint is passed over, reported, and set aside: renamed to `NAME.damaged`, so that it neither
comes up at every start nor is in the way of the next save. What is set aside:

- only checkpoints that were read twice, the second time from the disk, and were damaged or cut short both times;
- of this run; or, if even that can't be told, in a directory in which no other run has checkpoints;
- that nobody is seen to write to, and that have not changed in between;
- and only once another checkpoint has been read to its last byte, so that a run whose checkpoints are all damaged is
  left as it is, for people to look at.

What cannot be read for another reason (permission, a newer version of the format) may be sound: it stays. So does
every file of `torch.save`, whose damage nothing proves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ckptfmt.errors import CkptfmtError, FormatError, ProblemKind, StorageError, error_for
from ckptfmt.format.index import ROOT, Metadata
from ckptfmt.reader import Checkpoint
from ckptfmt.runs import CheckpointFile, Stamp, choose_run, newest_first, reason, run_ids, scan
from ckptfmt.storage.aside import forget_cached, is_being_written, set_aside
from ckptfmt.torch import io
from ckptfmt.torch.documented import documented_checkpoint, documented_checkpoints, is_documented, read_documented
from ckptfmt.torch.failures import ResumeError, UsageError
from ckptfmt.torch.live import ComponentStates
from ckptfmt.torch.report import SkippedFile

__all__ = ["Resume", "Selection", "VerifiedCheckpoint", "open_again", "open_newest", "select"]

Resume = str | os.PathLike[str]
"""`auto`, `must`, `never`, or a path."""

_ATTEMPTS = 5


@dataclass(frozen=True)
class Selection:
    """The checkpoints that a run may go on from.

    Attributes:
        directory: Where they are.
        run_id: The run; None if none was asked for and no readable checkpoint names one.
        files: Its checkpoints whose index is sound, and those of the documented loop, the newest first.
        unusable: Files that tell of no run: damaged in the index, truncated, or unreadable.
        other_runs: The ids of the other runs found, sorted.
        required: Whether it is an error if there is none.
        exact: Whether it is this one file or none.
        tidy: Whether damaged ones are to be set aside.
    """

    directory: str
    run_id: str | None
    files: tuple[CheckpointFile, ...] = ()
    unusable: tuple[CheckpointFile, ...] = ()
    other_runs: tuple[str, ...] = ()
    required: bool = False
    exact: bool = False
    tidy: bool = False

    @property
    def candidates(self) -> tuple[str, ...]:
        """Paths of `files`."""
        return tuple(file.path for file in self.files)


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A checkpoint every byte of which was verified, as far as its format can tell.

    Attributes:
        path: The file.
        metadata: The facts written inside.
        names: Names of its components.
        states: The states that were asked for, by component; the data are still to be read.
        whole: The states of a file without such components, read whole: of `torch.save` by the documented loop, or
            one that holds a single tree.
        skipped: Newer ones, and files whose age can't be told, that could not be used. The reason ends with the new
            name where one was set aside.
        documented: Whether it is a file of `torch.save` by the documented loop: it has no run, no steps, and neither
            states of generators nor a place in the data.
    """

    path: str
    metadata: Metadata
    names: tuple[str, ...]
    states: ComponentStates | None = None
    whole: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[SkippedFile, ...] = ()
    documented: bool = False

    @property
    def trees(self) -> Mapping[str, Any]:
        """The states by component, with stand-ins for the data that are still to be read."""
        return self.whole if self.states is None else self.states.trees

    def rank_count(self, name: str) -> int:
        """See `ComponentStates.rank_count`."""
        return 1 if self.states is None else self.states.rank_count(name)


def select(
    directory: str | os.PathLike[str],
    run_id: str | None = None,
    resume: Resume = "auto",
    *,
    now: datetime | None = None,
) -> Selection:
    """Return the checkpoints to resume from; of those of this format only the indexes are read.

    The candidates are the files named `*.ckptfmt` of the run, those of the latest generation first, and of these the
    one with the most steps, then the most epochs, then the one created last; a checkpoint without a run id belongs to
    no run. Among them are the `.pth` and `.pt` files of the documented loop that have more epochs finished, unless the
    run has no checkpoint of its own and another run has.

    Args:
        directory: The directory of the run.
        run_id: The run; None for the one of the checkpoint that was created last (`ckptfmt.runs.choose_run`).
        resume: `auto`: the newest that verifies, or none if there is no checkpoint. `must`: the same, and no checkpoint
            is an error. `never`: none. A path to a file: exactly this one. A path to a directory: the newest there,
            which must be.
        now: The present, aware; the clock's if None.

    Raises:
        StorageError: The directory cannot be listed, or the path does not lead to a file or directory.
        FormatError: The one file that was asked for is not valid.
        ResumeError: It is not a checkpoint of the documented loop.
        UsageError: `never`, and the run that was named has checkpoints already.
    """
    directory = os.fspath(directory)
    if resume == "never":
        return _none(directory, run_id)
    if resume in ("auto", "must"):
        return replace(_newest(directory, run_id, now), required=resume == "must", tidy=True)
    path = os.fspath(resume)
    if Path(path).is_dir():
        return replace(_newest(path, run_id, now), required=True)
    return _exactly(path)


def open_newest(selection: Selection, takers: Mapping[str, object], stack: ExitStack) -> VerifiedCheckpoint | None:
    """Return the newest checkpoint that verifies; None if there is none at all, which is fine unless it is required.

    Of several processes that resume together, only one should call this: it sets damaged checkpoints aside.

    Args:
        selection: What there is to choose from.
        takers: What takes the states (see `ComponentStates`).
        stack: Keeps the file open that is returned.

    Raises:
        ResumeError: There are some and none can be used, or there is none and it is required.
        CkptfmtError: The one file that was asked for cannot be used.
    """
    for _ in range(_ATTEMPTS):
        skipped: list[CheckpointFile] = []
        for file in selection.files:
            try:
                found = _load(file, takers, stack)
            except CkptfmtError as error:
                if selection.exact:
                    raise
                skipped.append(replace(file, error=error))
            else:
                return replace(found, skipped=_report([*skipped, *selection.unusable], selection))
        if all(os.path.lexists(file.path) for file in skipped):
            break
        # Retention removes old checkpoints when there are newer ones: these are to be found now.
        selection = _again(selection)
    unused = [_told(file) for file in (*skipped, *selection.unusable)]
    if unused:
        raise ResumeError(
            f"{selection.directory}: none of the checkpoints can be used, and starting from scratch beside them would "
            "waste what they hold; move them away to start anew, or pass the run_id= of another run:",
            unused,
        )
    if selection.required:
        raise ResumeError(_nothing(selection))
    return None


def _none(directory: str, run_id: str | None) -> Selection:
    runs = run_ids(scan(directory))
    if run_id in runs:
        raise UsageError(
            f'{directory}: run {run_id} has checkpoints here, and resume="never" would begin a second one under its '
            "name: give another run_id= or directory"
        )
    return Selection(directory, run_id, other_runs=runs)


def _exactly(path: str) -> Selection:
    if is_documented(path):
        file = documented_checkpoint(path)
        if file is None:
            raise ResumeError(
                f"{path}: is no checkpoint of a training loop: that is a dict with an int `epoch` beside the states; "
                "to start from weights alone, load them into the model instead"
            )
        if file.error is not None:
            raise file.error
        return Selection(str(Path(path).parent), None, (file,), required=True, exact=True)
    with io.open(path) as checkpoint:
        file = CheckpointFile(path, checkpoint.metadata, checkpoint.identity, stamp=Stamp.of(path))
    return Selection(str(Path(path).parent), file.run_id, (file,), required=True, exact=True)


def _newest(directory: str, run_id: str | None, now: datetime | None) -> Selection:
    files = scan(directory)
    doubtful = [file.path for file in files if _is_damaged(file)]
    if doubtful:
        for path in doubtful:
            forget_cached(path)
        files = scan(directory, [file for file in files if file.path not in doubtful])
    if run_id is None:
        run_id = choose_run(files, now)
    runs = run_ids(files)
    ours = newest_first(files, run_id) if run_id is not None else ()
    documented = documented_checkpoints(directory) if ours or not runs else ()
    return Selection(
        directory=directory,
        run_id=run_id,
        files=tuple(_merged(ours, [file for file in documented if file.usable])),
        unusable=tuple(file for file in (*files, *documented) if not file.usable),
        other_runs=tuple(run for run in runs if run != run_id),
    )


def _merged(ours: Sequence[CheckpointFile], documented: Sequence[CheckpointFile]) -> Iterator[CheckpointFile]:
    """Yield both, each in its order; one of the documented loop first only if it has more epochs finished."""
    waiting = list(documented)
    for file in ours:
        while waiting and (waiting[0].metadata.epoch or 0) > (file.metadata.epoch or 0):
            yield waiting.pop(0)
        yield file
    yield from waiting


def _again(selection: Selection) -> Selection:
    """Return the same selection as it is now."""
    return replace(
        _newest(selection.directory, selection.run_id, None), required=selection.required, tidy=selection.tidy
    )


def open_again(found: VerifiedCheckpoint, takers: Mapping[str, object], stack: ExitStack) -> VerifiedCheckpoint:
    """Return a checkpoint that another process has verified and chosen, as `open_newest` returns it there.

    Raises:
        CkptfmtError: It cannot be read here, or is another one.
    """
    if found.documented:
        return replace(found, whole=read_documented(found.path))
    checkpoint = stack.enter_context(io.open(found.path))
    if checkpoint.metadata != found.metadata:
        raise StorageError(f"{found.path}: here it is another file than on rank 0: use a directory that all share")
    return replace(_read(checkpoint, takers), skipped=found.skipped)


def _load(file: CheckpointFile, takers: Mapping[str, object], stack: ExitStack) -> VerifiedCheckpoint:
    """Verify a checkpoint; one that seems to be damaged is read once more, from the disk."""
    if is_documented(file.path):
        whole = read_documented(file.path)
        return VerifiedCheckpoint(file.path, file.metadata, tuple(whole), whole=whole, documented=True)
    try:
        return _verified(file.path, takers, stack)
    except FormatError:
        forget_cached(file.path)
        return _verified(file.path, takers, stack)


def _verified(path: str, takers: Mapping[str, object], stack: ExitStack) -> VerifiedCheckpoint:
    with ExitStack() as meanwhile:
        checkpoint = meanwhile.enter_context(io.open(path))
        problems = checkpoint.verify()
        if problems:
            raise error_for(problems, path)
        found = _read(checkpoint, takers)
        stack.push(meanwhile.pop_all())  # only what can be used stays open
        return found


def _read(checkpoint: Checkpoint, takers: Mapping[str, object]) -> VerifiedCheckpoint:
    path, metadata = checkpoint.path, checkpoint.metadata
    if ROOT in checkpoint:
        tree = io.read_state(checkpoint)
        whole = tree if isinstance(tree, Mapping) else {}
        return VerifiedCheckpoint(path, metadata, tuple(whole), whole=whole)
    return VerifiedCheckpoint(path, metadata, tuple(checkpoint), ComponentStates(checkpoint, takers))


def _report(skipped: Sequence[CheckpointFile], selection: Selection) -> tuple[SkippedFile, ...]:
    """Set aside what may be, and return what is told of all."""
    told = []
    for file in skipped:
        note = _told(file)
        if selection.tidy and _may_be_set_aside(file, selection):
            try:
                note = replace(note, reason=f"{note.reason}; set aside as {Path(set_aside(file.path)).name}")
            except StorageError as error:
                note = replace(note, reason=f"{note.reason}; {reason(error, file.path)}")
        told.append(note)
    return tuple(told)


def _may_be_set_aside(file: CheckpointFile, selection: Selection) -> bool:
    ours = file.run_id is not None or not selection.other_runs
    return ours and _is_damaged(file) and file.stamp == Stamp.of(file.path) and not is_being_written(file.path)


def _is_damaged(file: CheckpointFile) -> bool:
    """Say whether a file is known to be no whole checkpoint, rather than only out of reach."""
    if not isinstance(file.error, FormatError) or is_documented(file.path):
        return False
    return all(problem.kind is not ProblemKind.UNSUPPORTED for problem in file.error.problems)


def _told(file: CheckpointFile) -> SkippedFile:
    assert file.error is not None
    return SkippedFile(file.path, reason(file.error, file.path))


def _nothing(selection: Selection) -> str:
    run = "" if selection.run_id is None else f" of run {selection.run_id}"
    others = f"; there are checkpoints of other runs: {', '.join(selection.other_runs)}" if selection.other_runs else ""
    return f"{selection.directory}: there is no checkpoint{run} to resume from, and one is required{others}"
