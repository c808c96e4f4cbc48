"""The resume point of a run: one checkpoint, chosen on rank 0 once the run is claimed, and opened on all ranks."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, Protocol, TypeVar

from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.local.retries import Patience
from ckptfmt._core.storage.resolve import absolute, is_directory, join, make_directory, name_of
from ckptfmt._core.training.claiming import new_run_id
from ckptfmt._core.training.lineage import Ancestor, lineage_from, lineage_of
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.ranks import Ranks
from ckptfmt._core.training.resume.selection import (
    Selection,
    choose,
    new_patience,
    of_no_run,
    select,
    undecided_if_unknown,
)
from ckptfmt._core.training.run_record import RunRecord
from ckptfmt.errors import HeldError, SkippedFile, UndecidedError

__all__ = ["Opener", "ResumePoint", "find_resume_point", "released_if_it_fails"]

_WORDS = ("auto", "must", "never")  # anything else is a path

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Opener(Protocol[T_co]):
    """Opens checkpoints for one resume."""

    def open_verified(self, file: CheckpointReference, patience: Patience) -> T_co:
        """Verify all bytes of a checkpoint and return it. Called on rank 0, newest first, until one is sound.

        Args:
            file: Reference to the checkpoint.
            patience: How often to retry failed reads.

        Raises:
            CkptfmtError: The checkpoint cannot be read, is damaged, or was replaced by another one.
        """

    def open_chosen(self, file: CheckpointReference) -> T_co:
        """Return the checkpoint that rank 0 has verified and chosen. Called on the other ranks.

        Raises:
            CkptfmtError: The checkpoint cannot be read here, or differs from the one on rank 0.
        """


@dataclass(frozen=True)
class ResumePoint(Generic[T]):
    """The resume point of a run.

    Attributes:
        run_id: Id of the run.
        file: Reference to the checkpoint; None if the run is new.
        checkpoint: The checkpoint, as opened on this rank.
        lineage: Lineage of the run.
        other_runs: Ids of other runs with checkpoints in the directory.
        skipped: Skipped checkpoints, with reasons.
    """

    run_id: str
    file: CheckpointReference | None = None
    checkpoint: T | None = None
    lineage: tuple[Ancestor, ...] = ()
    other_runs: tuple[str, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()


@contextmanager
def released_if_it_fails(run: RunRecord, ranks: Ranks) -> Iterator[None]:
    """Release the claim of a run if its resume fails, and report an error that would end the process silently."""
    try:
        yield
    except BaseException as error:
        run.claim.release()
        if isinstance(error, UndecidedError) and not isinstance(error, HeldError) and ranks.world().rank == 0:
            message, *details = map(str, error.args)
            notify(message, logging.ERROR, details=details)
        raise


def find_resume_point(
    run: RunRecord,
    resume: str | os.PathLike[str],
    opener: Opener[T],
    ranks: Ranks,
    *,
    takeover: bool = False,
    inert: Collection[str] = (),
) -> ResumePoint[T]:
    """Claim a run and return its resume point, the same on all ranks. All ranks call it.

    Args:
        run: The run.
        resume: See `selection.select`.
        opener: Opens checkpoints.
        ranks: The job.
        takeover: Take the run over from any holder.
        inert: Names in pickles to keep as inert data (see `pth.reading.read_state`).

    Raises:
        UndecidedError: The newest checkpoint cannot be determined, or the chosen one cannot be read on this rank.
        CkptfmtError: No checkpoint is usable, or another process holds the run.
        RankError: The resume failed on another rank.
    """
    if resume not in _WORDS:
        resume = absolute(resume)
    chooser = _Chooser(run, resume, opener, takeover=takeover, inert=inert)
    chosen: list[ResumePoint[T]] = []

    def choose_here() -> ResumePoint[T]:
        point = chooser.choose()
        chosen.append(point)
        return replace(point, checkpoint=None)  # each rank reads it from the file

    shared = ranks.on_rank_0(choose_here)

    def open_here() -> ResumePoint[T]:
        if chosen:
            return chosen[0]
        if shared.file is None:
            return shared
        file = chooser.found_here(shared.file)
        return replace(shared, file=file, checkpoint=chooser.open(file))

    return ranks.together(open_here)


@dataclass(frozen=True)
class _Chooser(Generic[T]):
    """Chooses the checkpoint on rank 0, and opens it on the others."""

    run: RunRecord
    resume: str | os.PathLike[str]
    opener: Opener[T]
    takeover: bool = False
    inert: Collection[str] = ()
    patience: Patience = field(default_factory=new_patience)

    def choose(self) -> ResumePoint[T]:
        """Claim the run, and choose its checkpoint."""
        run = self.run
        with undecided_if_unknown(run.directory):
            self.patience(partial(make_directory, run.directory), run.directory)
            selection = self._select(run.id)
            known = selection.candidates.run_id
            # Earlier processes publish nothing more once the run is claimed: only then is the newest checkpoint known.
            claimed = self._claim(run.id or known, selection)
            if self.resume in ("auto", "must"):
                selection = self._select(claimed if known is not None else run.id)
            found = choose(selection, partial(self.opener.open_verified, patience=self.patience), self.patience)
            there = selection.candidates
            if found is None:
                return ResumePoint(claimed, other_runs=there.other_runs, skipped=of_no_run(there))
            run.protect(found.unreadable, [file.path for file in there.files])
            run_id = run.id or found.file.run_id
            if run_id is None:  # from a loop without run id: if it is ahead of the run here, a new run begins
                run_id = claimed if known is None else new_run_id()
            if run_id != claimed:
                run.claim.take(run_id, found.file.metadata.generation or 0, takeover=self.takeover)
            lineage = _lineage(found.file, run_id)
            return ResumePoint(run_id, found.file, found.checkpoint, lineage, there.other_runs, found.skipped)

    def found_here(self, file: CheckpointReference) -> CheckpointReference:
        """Return the choice of rank 0 under its path on this rank: each rank has its own path to the same files."""
        place = self.run.directory if self.resume in _WORDS else os.fspath(self.resume)
        exact = name_of(place) == file.name and not is_directory(place)
        return replace(file, path=place if exact else join(place, file.name))

    def open(self, file: CheckpointReference) -> T:
        """Open the checkpoint chosen by rank 0 on this rank."""
        with undecided_if_unknown(file.path):
            return self.patience(lambda: self.opener.open_chosen(file), file.path)

    def _select(self, run_id: str | None) -> Selection:
        return select(self.run.directory, run_id, self.resume, patience=self.patience, inert=self.inert)

    def _claim(self, run_id: str | None, selection: Selection) -> str:
        """Claim a run, or a new one, before the choice; return its id."""
        if run_id is None and self.resume == "never":
            run_id = new_run_id()
        there = selection.candidates.files if self.resume in ("auto", "must") else scan(self.run.directory)
        latest = max((file.metadata.generation or 0 for file in there if file.run_id == run_id), default=0)
        return self.run.claim.take(run_id, latest, takeover=self.takeover)


def _lineage(file: CheckpointReference, run_id: str) -> tuple[Ancestor, ...]:
    """Return the lineage of a run that resumes here: its own so far, or one headed by another run's checkpoint."""
    facts = file.metadata
    if file.identity is not None and file.run_id != run_id:
        return lineage_from(file.path, file.identity, facts)
    noted = lineage_of(facts)
    return noted if noted or facts.parent is None else (Ancestor(facts.parent.hex()),)
