"""Resuming a run: one checkpoint is chosen for all ranks, compared with all objects, and only then restored."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.live_objects.components import name_list
from ckptfmt._core.torch.restore.plan import RestorePlan, plan_restore
from ckptfmt._core.torch.resume.opening import CheckpointOpener, VerifiedCheckpoint
from ckptfmt._core.torch.run.components import PROGRESS, RNG, Run
from ckptfmt._core.torch.run.loop import Loop
from ckptfmt._core.torch.run.progress import Progress, progress_of
from ckptfmt._core.torch.state.inert import inert_objects
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.report import ResumeReport
from ckptfmt._core.training.resume.peek import Peek, require_peeked
from ckptfmt._core.training.resume.resume_point import ResumePoint, find_resume_point, released_if_it_fails
from ckptfmt._core.training.resume.selection import new_patience
from ckptfmt._core.training.saving.background_saver import wait_for_all
from ckptfmt.errors import MismatchError, UsageError

__all__ = ["resume_run"]


def resume_run(
    run: Run,
    loop: Loop,
    resume: str | os.PathLike[str] | Peek,
    allow_mismatch: Collection[str],
    inert: Collection[str] = (),
    *,
    takeover: bool = False,
) -> ResumeReport:
    """Resume or start a run (see `Checkpointer.resume`). All ranks call it."""
    if loop.resumed:
        raise UsageError("resume() called twice; call it once, before the loop")
    allowed, inert = name_list("allow_mismatch", allow_mismatch), name_list("inert", inert)
    wait_for_all()
    _compare_ranks(run)
    with ExitStack() as stack, released_if_it_fails(run, ranks):
        opener = CheckpointOpener({**run.components, RNG: None, PROGRESS: None}, stack, inert)
        wanted = "auto" if isinstance(resume, Peek) else resume
        point = find_resume_point(run, wanted, opener, ranks, takeover=takeover, inert=inert)
        if isinstance(resume, Peek):
            path, identity = (None, None) if point.file is None else (point.file.path, point.file.identity)
            require_peeked(resume, run.directory, path, identity)
        run.id = point.run_id
        if point.checkpoint is None:
            loop.begin(Progress(), None)
            return ResumeReport(
                run.directory, path=None, run_id=point.run_id, skipped=point.skipped, other_runs=point.other_runs
            )
        found = point.checkpoint
        # No rank changes anything before the checkpoint fits on all of them, and none continues if one fails.
        restore = ranks.together(lambda: _plan(run, found, allowed))
        return ranks.together(lambda: _restore(run, loop, point, found, restore))


def _compare_ranks(run: Run) -> None:
    """Report components that some ranks lack, before anything is read.

    Raises:
        UsageError: Rank 0, which saves, lacks one.
        RankError: Rank 0 lacks one, raised on the other ranks.
    """
    given = ranks.gather(lambda: tuple(run.components))

    def compare() -> None:
        everywhere = [set(names) for names in given or ()]
        for name in dict.fromkeys(name for names in given or () for name in names):
            lacking = [rank for rank, names in enumerate(everywhere) if name not in names]
            where = ", ".join(map(str, lacking))
            if 0 in lacking:
                raise UsageError(
                    f"rank 0, which saves, lacks component {name!r}; pass the same components on all ranks"
                )
            if lacking:
                notify(f"component {name!r} is missing on rank {where}: rank 0's is saved, and not restored there")

    ranks.on_rank_0(compare)


@dataclass(frozen=True)
class _Plan:
    """Plan of a resume.

    Attributes:
        components: Plan of the components.
        random: States of the generators; None: they stay unchanged.
        progress: Position to resume from.
        has_place: Whether the checkpoint has a usable position for this rank.
        lost: What of these two is not restored, one line each.
    """

    components: RestorePlan
    random: rng.RandomState | None
    progress: Progress
    has_place: bool
    lost: tuple[str, ...]


def _plan(run: Run, found: VerifiedCheckpoint, allow_mismatch: frozenset[str]) -> _Plan:
    """Check everything that can be checked, without any change."""
    state = dict(found.trees)
    # Random states and positions depend on the number of ranks, even where they are equal.
    for name in (RNG, PROGRESS):
        if found.rank_count(name) != ranks.world().size:
            state.pop(name, None)
    states = found.states
    # A file of another program may contain anything. Native checkpoints contain what the components returned.
    foreign = found.metadata.run_id is None
    refused = {name: inert_objects(name, tree) for name, tree in state.items() if foreign}
    if states is None:
        plan = plan_restore(run.components, state, allow_mismatch, refused=refused, path=found.path)
    else:
        plan = states.plan(run.components, state, allow_mismatch, refused)
    random, lost_random = _random_of(found, state)
    progress, lost_place = _progress_of(found, state)
    lost = {RNG: lost_random, PROGRESS: lost_place}
    differences = [
        *plan.differences,
        *(line for name, lines in lost.items() if name not in allow_mismatch for line in lines),
    ]
    if differences:
        raise MismatchError(_advice(found.path), differences)
    has_place = PROGRESS in state and not lost_place
    return _Plan(plan, random, progress, has_place, (*lost_random, *lost_place))


def _restore(
    run: Run, loop: Loop, point: ResumePoint[VerifiedCheckpoint], found: VerifiedCheckpoint, plan: _Plan
) -> ResumeReport:
    """Change the live objects."""
    if found.states is None:
        details = plan.components.apply(found.path)
    else:
        details = found.states.restore(plan.components, patience=new_patience())
    progress = plan.progress
    loop.begin(progress, plan.random, allow_mismatch=PROGRESS in plan.components.may_differ)
    run.lineage = point.lineage
    empty = tuple(detail.name for detail in details if detail.empty)
    run.hollow.note_restored(empty)
    there = {detail.name: detail.restored for detail in details if not detail.empty}
    there |= {RNG: plan.random is not None, PROGRESS: plan.has_place}
    return ResumeReport(
        directory=run.directory,
        path=found.path,
        run_id=str(run.id),
        step=progress.step,
        epoch=progress.epoch,
        batch=progress.consumed,
        restored=tuple(name for name, is_there in there.items() if is_there),
        empty=empty,
        missing=tuple(name for name, is_there in there.items() if not is_there),
        unexpected=tuple(name for name in found.names if name not in there and name not in empty),
        components=details,
        mismatched=plan.lost,
        parent=run.parent,
        skipped=point.skipped,
        other_runs=point.other_runs,
    )


def _random_of(found: VerifiedCheckpoint, state: Mapping[str, Any]) -> tuple[rng.RandomState | None, list[str]]:
    """Return the random states to restore, and those that are lost."""
    random = state.get(RNG)
    if random is None and RNG in found.names:
        return None, [f"rng: {_of_other_ranks(found, RNG)}"]
    if random is None:
        return None, ["rng: the checkpoint has no random states"]
    try:
        rng.check(random)
    except MismatchError as error:
        return None, list(error.differences)
    return random, [f"rng.{loss}" for loss in rng.losses(random)]


def _progress_of(found: VerifiedCheckpoint, state: Mapping[str, Any]) -> tuple[Progress, list[str]]:
    """Return the position to resume from, and what of it is lost.

    A checkpoint saved by other means records only its epoch, which is enough between two epochs.
    """
    by_epoch = Progress(step=found.metadata.step or 0, epoch=found.metadata.epoch or 0)
    if PROGRESS in state:
        try:
            return progress_of(state[PROGRESS]), []
        except MismatchError as error:
            return by_epoch, list(error.differences)
    if PROGRESS in found.names:
        return by_epoch, [f"progress: {_of_other_ranks(found, PROGRESS)}"]
    return by_epoch, []


def _of_other_ranks(found: VerifiedCheckpoint, name: str) -> str:
    saved = found.rank_count(name)
    return f"saved by {saved} rank{'' if saved == 1 else 's'}, resumed by {ranks.world().size}: each rank has its own"


def _advice(path: str) -> str:
    return (
        f"{path}: the checkpoint does not fit; nothing was changed; build the objects as they were, or restore "
        'only what fits of a component: resume(allow_mismatch=["NAME"])'
    )
