"""Report of `Checkpointer.resume`, and its text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckptfmt._escaping import escape
from ckptfmt.errors import SkippedFile

__all__ = ["ComponentReport", "ResumeReport", "labelled", "render_report", "the_first"]

_SHOWN_LINES = 20
_SHOWN_PLACES = 8


@dataclass(frozen=True)
class ComponentReport:
    """What became of one component.

    Attributes:
        name: Its name.
        restored: Whether it was given a state; with differences, only what fitted.
        differences: What of it was not restored, a line each: `allow_mismatch` named it.
        notes: What was restored in another way than it was saved, a line each.
        per_rank: Places of the values that differ between ranks, such as `net.avg`, and of which this rank got its own.
        empty: Whether the checkpoint has an empty state for it: there was nothing to restore.
    """

    name: str
    restored: bool
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    per_rank: tuple[str, ...] = ()
    empty: bool = False


@dataclass(frozen=True)
class ResumeReport:
    """What `Checkpointer.resume` did.

    Attributes:
        directory: Where it looked.
        path: The checkpoint that was restored; None if a new run was started.
        run_id: The run that goes on or starts.
        step: Optimizer steps done since the start of the run.
        epoch: Epochs finished.
        batch: Batches of the unfinished epoch that are done.
        restored: Names of the components that were restored, `rng` and `progress` among them.
        empty: Names of components for which the checkpoint has an empty state: nothing of them was restored.
        missing: Names of components that were given and are not in the checkpoint: left as they are.
        unexpected: Names of components that are in the checkpoint and were not given.
        components: What became of each component that was given.
        mismatched: What else was not restored, a line each: random states, the place in the data.
        parent: Identity of the checkpoint that the run started from; None if it started from none.
        skipped: Newer or unreadable checkpoints that were passed over.
        other_runs: Ids of other runs with checkpoints in the directory.
    """

    directory: str
    path: str | None
    run_id: str
    step: int = 0
    epoch: int = 0
    batch: int = 0
    restored: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    components: tuple[ComponentReport, ...] = ()
    mismatched: tuple[str, ...] = ()
    parent: str | None = None
    skipped: tuple[SkippedFile, ...] = ()
    other_runs: tuple[str, ...] = ()

    @property
    def resumed(self) -> bool:
        """Whether a checkpoint was restored."""
        return self.path is not None


def render_report(report: ResumeReport) -> str:
    """Return the report as a few lines of text, each ended by a line feed. No name in it can harm a terminal."""
    return "".join(f"{escape(line)}\n" for line in _lines(report))


def _lines(report: ResumeReport) -> Iterator[str]:
    if report.path is None:
        yield f"ckptfmt: no checkpoint in {report.directory}: run {report.run_id} starts"
    else:
        yield f"ckptfmt: run {report.run_id} resumes from {Path(report.path).name} in {report.directory}"
        yield f"  place       step {report.step}; epochs finished: {report.epoch}; batches of the next: {report.batch}"
        yield f"  restored    {', '.join(report.restored)}"
    if report.empty:
        yield f"  empty       {', '.join(report.empty)}: nothing in the checkpoint to restore"
    if report.missing:
        yield f"  missing     {', '.join(report.missing)}: not in the checkpoint, left as it is"
    if report.unexpected:
        yield f"  unexpected  {', '.join(report.unexpected)}: in the checkpoint, not given to the Checkpointer"
    lost = [line for detail in report.components if detail.restored for line in detail.differences]
    yield from labelled("mismatched", [*lost, *report.mismatched])
    per_rank = [place for detail in report.components if detail.restored for place in detail.per_rank]
    if per_rank:
        yield f"  per rank    {the_first(per_rank)}: each rank restored its own value"
    yield from labelled("changed", [line for detail in report.components for line in detail.notes])
    if report.parent is not None:
        yield f"  parent      {report.parent}: what the run started from"
    for skipped in report.skipped:
        yield f"  skipped     {Path(skipped.path).name}: {skipped.reason}"
    if report.other_runs:
        yield f"  left        checkpoints of other runs: {', '.join(report.other_runs)}"


def the_first(places: Sequence[str]) -> str:
    """Return the first few places in a line, and how many more there are."""
    more = f" and {len(places) - _SHOWN_PLACES} more" if len(places) > _SHOWN_PLACES else ""
    return f"{', '.join(places[:_SHOWN_PLACES])}{more}"


def labelled(word: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield each line behind a word, and how many more there are."""
    for line in lines[:_SHOWN_LINES]:
        yield f"  {word:<10}  {line}"
    if len(lines) > _SHOWN_LINES:
        yield f"  {word:<10}  ... and {len(lines) - _SHOWN_LINES} more"
