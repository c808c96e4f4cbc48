"""Going on with a run: one checkpoint is chosen for all ranks, compared with everything, and only then restored."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.local.publication.atomic_directory import make_directory
from ckptfmt._core.storage.local.retries import Patience
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.live_objects.components import name_list
from ckptfmt._core.torch.restore.plan import RestorePlan, plan_restore
from ckptfmt._core.torch.restore.weight_files import Ancestor, lineage_from, lineage_of
from ckptfmt._core.torch.resume.opening import VerifiedCheckpoint, open_again
from ckptfmt._core.torch.resume.selection import (
    Selection,
    new_patience,
    of_no_run,
    open_newest,
    select,
    undecided_if_unknown,
)
from ckptfmt._core.torch.run.components import PROGRESS, RNG, Run
from ckptfmt._core.torch.run.loop_state import Loop
from ckptfmt._core.torch.run.progress import Progress
from ckptfmt._core.torch.state.inert import inert_objects
from ckptfmt._core.training.claiming import new_run_id
from ckptfmt._core.training.failures import HeldError, UndecidedError, UsageError
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.report import ResumeReport, SkippedFile
from ckptfmt._core.training.saving.background_saver import wait_for_all
from ckptfmt.errors import MismatchError

__all__ = ["resume_run"]


def resume_run(
    run: Run,
    loop: Loop,
    resume: str | os.PathLike[str],
    allow_mismatch: Collection[str],
    inert: Collection[str] = (),
    *,
    takeover: bool = False,
) -> ResumeReport:
    """Go on with a run or start it, as `Checkpointer.resume` says, which see. To be called by all ranks."""
    if loop.resumed:
        raise UsageError("resume() twice: call it once, before the loop")
    allowed, inert = name_list("allow_mismatch", allow_mismatch), name_list("inert", inert)
    wait_for_all()
    with ExitStack() as stack, _released_if_it_fails(run):
        takers = {**run.components, RNG: None, PROGRESS: None}
        choice = _on_rank_0(_Chooser(run, resume, takers, stack, takeover=takeover, inert=inert))
        run.id = choice.run_id
        if choice.found is None:
            loop.begin(Progress(), None)
            return ResumeReport(
                run.directory, path=None, run_id=choice.run_id, skipped=choice.skipped, other_runs=choice.other_runs
            )
        found = choice.found
        # No rank changes anything before the checkpoint fits all of them, and none trains on if one could not.
        restore = ranks.together(lambda: _plan(run, found, allowed))
        return ranks.together(lambda: _restore(run, loop, choice, found, restore))


@dataclass(frozen=True)
class _Choice:
    run_id: str
    lineage: tuple[Ancestor, ...]
    other_runs: tuple[str, ...]
    skipped: tuple[SkippedFile, ...]
    found: VerifiedCheckpoint | None


@contextmanager
def _released_if_it_fails(run: Run) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        run.claim.release()
        if isinstance(error, UndecidedError) and not isinstance(error, HeldError) and ranks.world().rank == 0:
            message, *details = map(str, error.args)
            notify(message, logging.ERROR, details=details)  # uncaught, it ends the process without a word
        raise


@dataclass(frozen=True)
class _Chooser:
    """Chooses the checkpoint on rank 0, and opens it on the others."""

    run: Run
    resume: str | os.PathLike[str]
    takers: Mapping[str, object]
    stack: ExitStack
    takeover: bool = False
    inert: Collection[str] = ()
    patience: Patience = field(default_factory=new_patience)

    def choose(self) -> _Choice:
        """Return what the run resumes from.

        Raises:
            UndecidedError: That cannot be told.
            CkptfmtError: There is nothing that can be used, or another process holds the run.
        """
        run = self.run
        with undecided_if_unknown(run.directory):
            self.patience(partial(make_directory, run.directory), run.directory)
            selection = self._select(run.id)
            known = selection.candidates.run_id
            # Whoever saved the run so far publishes nothing more once it is claimed: only then is the newest known.
            claimed = self._claim(run.id or known, selection)
            if self.resume in ("auto", "must"):
                selection = self._select(claimed if known is not None else run.id)
            found = open_newest(selection, self.takers, self.stack, self.patience)
            there = selection.candidates
            if found is None:
                return _Choice(claimed, (), there.other_runs, of_no_run(there), None)
            run.protect(found.unreadable, [file.path for file in there.files])
            run_id = run.id or found.metadata.run_id
            if run_id is None:  # of a loop that names no run: if it is ahead of the run that is here, another begins
                run_id = claimed if known is None else new_run_id()
            if run_id != claimed:
                run.claim.take(run_id, found.metadata.generation or 0, takeover=self.takeover)
            return _Choice(run_id, _lineage(found, run_id), there.other_runs, found.skipped, found)

    def open(self, found: VerifiedCheckpoint) -> VerifiedCheckpoint:
        """Return what rank 0 has chosen, opened here.

        Raises:
            UndecidedError: It cannot be read here.
            CkptfmtError: It is damaged as it is read here, or is another one.
        """
        with undecided_if_unknown(found.path):
            return self.patience(lambda: open_again(found, self.takers, self.stack, self.inert), found.path)

    def _select(self, run_id: str | None) -> Selection:
        return select(self.run.directory, run_id, self.resume, patience=self.patience, inert=self.inert)

    def _claim(self, run_id: str | None, selection: Selection) -> str:
        """Claim a run, or a new one, before anything is chosen from; return its id."""
        if run_id is None and self.resume == "never":
            run_id = new_run_id()
        there = selection.candidates.files if self.resume in ("auto", "must") else scan(self.run.directory)
        latest = max((file.metadata.generation or 0 for file in there if file.run_id == run_id), default=0)
        return self.run.claim.take(run_id, latest, takeover=self.takeover)


def _lineage(found: VerifiedCheckpoint, run_id: str) -> tuple[Ancestor, ...]:
    """Return what a run that goes on from here descends from: what it did before, or another run's checkpoint."""
    facts = found.metadata
    if found.identity is not None and facts.run_id != run_id:
        return lineage_from(found.path, found.identity, facts)
    noted = lineage_of(facts)
    return noted if noted or facts.parent is None else (Ancestor(facts.parent.hex()),)


@dataclass(frozen=True)
class _Plan:
    """What is going to be restored.

    Attributes:
        components: Of the components.
        random: The states of the generators; None: they stay.
        progress: The place to go on from.
        has_place: Whether the checkpoint says that of this rank.
        lost: What of these two is not restored, a line each.
    """

    components: RestorePlan
    random: rng.RandomState | None
    progress: Progress
    has_place: bool
    lost: tuple[str, ...]


def _plan(run: Run, found: VerifiedCheckpoint, allow_mismatch: frozenset[str]) -> _Plan:
    """Check everything that can be checked, and change nothing."""
    state = dict(found.trees)
    # Random states and places belong to a number of ranks, even where they do not differ.
    for name in (RNG, PROGRESS):
        if found.rank_count(name) != ranks.world().size:
            state.pop(name, None)
    states = found.states
    # A file of another program may hold anything. What a run has saved, its components have expressed themselves.
    foreign = found.metadata.run_id is None
    refused = {name: inert_objects(name, tree) for name, tree in state.items() if foreign}
    if states is None:
        plan = plan_restore(run.components, state, allow_mismatch, refused=refused)
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
    return _Plan(plan, random, progress, PROGRESS in state, (*lost_random, *lost_place))


def _restore(run: Run, loop: Loop, choice: _Choice, found: VerifiedCheckpoint, plan: _Plan) -> ResumeReport:
    """Change the live objects."""
    if found.states is None:
        details = plan.components.apply()
    else:
        details = found.states.restore(plan.components, patience=new_patience())
    progress = plan.progress
    loop.begin(progress, plan.random, allow_mismatch=PROGRESS in plan.components.may_differ)
    run.lineage = choice.lineage
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
        skipped=found.skipped,
        other_runs=choice.other_runs,
    )


def _random_of(found: VerifiedCheckpoint, state: Mapping[str, Any]) -> tuple[rng.RandomState | None, list[str]]:
    """Return the random states to restore, and what is lost of them."""
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
    """Return the place to go on from, and what is lost of it.

    A checkpoint that was saved by other means says no more than its epoch; that is enough between two epochs.
    """
    by_epoch = Progress(step=found.metadata.step or 0, epoch=found.metadata.epoch or 0)
    if PROGRESS in state:
        try:
            return Progress.from_tree(state[PROGRESS]), []
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
        f"{path}: the checkpoint does not fit, and nothing was changed; build the objects as they were, or restore "
        'what fits of a component: resume(allow_mismatch=["NAME"])'
    )


def _on_rank_0(chooser: _Chooser) -> _Choice:
    """Return on every rank what rank 0 chooses, opened there, or raise on every rank what one of them raises."""
    chosen: list[_Choice] = []

    def choose() -> _Choice:
        choice = chooser.choose()
        chosen.append(choice)
        # The states themselves are not sent: each rank reads them from the file.
        return replace(choice, found=choice.found and replace(choice.found, states=None, whole={}, unreadable={}))

    shared = ranks.on_rank_0(choose)

    def open_here() -> _Choice:
        if chosen:
            return chosen[0]
        return replace(shared, found=shared.found and chooser.open(shared.found))

    return ranks.together(open_here)
