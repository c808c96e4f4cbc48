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
    """Outcome of a resume for one component.

    Attributes:
        name: Name of the component.
        restored: Whether it was restored; with differences, only what fitted.
        differences: Parts that were not restored because `allow_mismatch` names the component, one line each.
        notes: Parts that were restored differently from how they were saved, one line each.
        per_rank: Paths of values that differ between ranks, such as `net.avg`; this rank restored its own.
        empty: Whether its state in the checkpoint is empty: there was nothing to restore.
    """

    name: str
    restored: bool
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    per_rank: tuple[str, ...] = ()
    empty: bool = False


@dataclass(frozen=True)
class ResumeReport:
    """Report of `Checkpointer.resume`.

    Attributes:
        directory: Directory of the run.
        path: The checkpoint that was restored; None if a new run was started.
        run_id: Id of the run that resumes or starts.
        step: Optimizer steps done since the start of the run.
        epoch: Number of epochs finished.
        batch: Number of batches done in the unfinished epoch.
        restored: Names of the restored components, including `rng` and `progress`.
        empty: Names of components whose state in the checkpoint is empty: there was nothing to restore.
        missing: Names of components of the run that are not in the checkpoint: left as they are.
        unexpected: Names of components that are in the checkpoint but not in the run.
        components: Outcome for each component of the run.
        mismatched: Anything else that was not restored, one line each: random states, the position in the data.
        parent: Identity of the checkpoint that the run started from; None without one.
        skipped: Newer or unreadable checkpoints that were skipped.
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
    """Return the report as lines of text, each ended by a line feed. Names are escaped: none can harm a terminal."""
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
    """Return the first few paths in one line, and the number of further ones."""
    more = f" and {len(places) - _SHOWN_PLACES} more" if len(places) > _SHOWN_PLACES else ""
    return f"{', '.join(places[:_SHOWN_PLACES])}{more}"


def labelled(word: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield the first few lines, each after a label, and the number of further ones."""
    for line in lines[:_SHOWN_LINES]:
        yield f"  {word:<10}  {line}"
    if len(lines) > _SHOWN_LINES:
        yield f"  {word:<10}  ... and {len(lines) - _SHOWN_LINES} more"
