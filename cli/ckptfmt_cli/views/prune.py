"""`PrunePlan` and `PruneResult` as text: a table with the reason for each file, and the space that is freed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from textwrap import wrap

from ckptfmt._core.ops.directory.prune import PrunePlan, PruneResult
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import Decision
from ckptfmt._core.runs.scan import distinct_bytes, reason
from ckptfmt._escaping import escape
from ckptfmt_cli.table import GAP, Cell, Column, table
from ckptfmt_cli.terminal import Style, Terminal
from ckptfmt_cli.text import age, cells, count, shorten, size

__all__ = ["plan_lines", "result_lines"]

_WORDS: dict[tuple[bool, bool], tuple[str, Style]] = {
    (True, True): ("keep", "good"),
    (False, True): ("remove", "bad"),
    (True, False): ("leave", "dim"),
}
_FILE_CELLS = 22  # columns of the terminal that reasons leave to long file names


def plan_lines(planned: PrunePlan, terminal: Terminal, now: datetime) -> list[str]:
    """Return the plan as text: the newest first; what does not belong to the run last."""
    plan = planned.plan
    title = f"{escape(planned.directory)}: {_about(planned)}"
    lines = [shorten(title, terminal.width, terminal.ellipsis), "", *_table(plan.decisions, terminal, now)]
    removed, kept = plan.removed, [item.file for item in plan.decisions if item.keep and item.concerned]
    if not removed:
        return [*lines, "", "Nothing to remove."]
    why = Counter(", ".join(item.reasons) for item in plan.decisions if not item.keep)
    summary = (
        f"Plan: remove {len(removed):,} of {count(len(removed) + len(kept), 'checkpoint')} ({size(plan.freed_bytes)}), "
        f"keep {len(kept):,} ({size(distinct_bytes(kept))})."
    )
    return [
        *lines,
        "",
        *(line for reason, number in why.items() for line in _wrapped(f"to remove ({number:,}): {reason}", terminal)),
        "",
        *_wrapped(summary, terminal),
    ]


def _wrapped(text: str, terminal: Terminal) -> list[str]:
    return wrap(escape(text), terminal.width, subsequent_indent="  ")


def _table(decisions: Sequence[Decision], terminal: Terminal, now: datetime) -> list[str]:
    """Return the decisions as a table. Reasons are never cut: long ones take several lines."""
    columns = [
        Column("plan"),
        Column("step", "right", leaves=2),
        Column("age", "right", leaves=1),
        Column("size", "right", leaves=3),
        Column("file", shrinks_to=12, alike=True),
        Column("reason", shrinks_to=16),
    ]
    facts = [_facts(decision, now) for decision in decisions]
    file_cells = min(max((cells(escape(decision.file.name)) for decision in decisions), default=0), _FILE_CELLS)
    heads = [Cell(column.title) for column in columns[:4]]
    others = sum(max(cells(line[at].text) for line in (heads, *facts)) for at in range(4))
    room = max(terminal.width - others - file_cells - GAP * 5, 16)
    rows: list[list[str | Cell]] = []
    for decision, line in zip(decisions, facts, strict=True):
        first, *more = wrap(", ".join(decision.reasons), room)
        rows.append([*line, decision.file.name, first])
        rows += [["", "", "", "", "", text] for text in more]
    return table(columns, rows, terminal)


def _facts(decision: Decision, now: datetime) -> list[Cell]:
    file, facts = decision.file, decision.file.metadata
    word, style = _WORDS[decision.keep, decision.concerned]
    where = str(facts.step) if facts.step is not None else "-" if facts.epoch is None else f"epoch {facts.epoch}"
    return [
        Cell(word, style),
        Cell(where),
        Cell("-" if facts.created is None else age(facts.created, now)),
        Cell("-" if file.file_bytes is None else size(file.file_bytes)),
    ]


def result_lines(result: PruneResult, terminal: Terminal) -> Iterator[str]:
    """Yield what was done, and where it differs from the plan."""
    for file in result.damaged:
        yield f"{escape(file.path)}: {terminal.paint('damaged', 'bad')}: {_reason(file)}; left alone"
    for file in result.spared:
        yield f"{escape(file.path)}: kept after all, in place of a damaged checkpoint"
    for failure in result.report.failed:
        yield f"{escape(failure.path)}: {terminal.paint('not removed', 'warn')}: {escape(failure.reason)}"
    for path in result.leftovers:
        yield f"{escape(path)}: removed: unfinished, and its writer is gone"
    report = result.report
    yield f"Removed {count(len(report.removed), 'checkpoint')} and freed {size(report.freed_bytes)}."


def _reason(file: CheckpointReference) -> str:
    assert file.error is not None  # the file would not count as damaged
    return escape(reason(file.error, file.path))


def _about(planned: PrunePlan) -> str:
    if planned.plan.run_id is not None:
        return f"run {escape(planned.plan.run_id)}"
    return "checkpoints without a run" if planned.plan.runless else "no checkpoint belongs to a run"
