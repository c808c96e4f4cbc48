"""`ListReport` as text: one table for each run, then the unusable files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from textwrap import wrap

from ckptfmt._core.ops.directory.listing import EntryState, ListEntry, ListReport, Mark, MetricCurve, RunInfo
from ckptfmt._core.storage.base import Writer
from ckptfmt._escaping import escape
from ckptfmt_cli.sparkline import sparkline
from ckptfmt_cli.table import GAP, Cell, Column, table
from ckptfmt_cli.terminal import Style, Terminal
from ckptfmt_cli.text import age, cells, count, listed, metric, number, shorten, size

__all__ = ["list_lines"]

_STYLES: dict[EntryState, Style] = {
    EntryState.INCOMPLETE: "warn",
    EntryState.DAMAGED: "bad",
    EntryState.UNREADABLE: "warn",
}
_WRITERS = {
    Writer.LIVING: "being written now",
    Writer.NONE: "never published; its writer is gone",
    Writer.UNKNOWN: "not published",
}
_FILE_CELLS = 24  # columns of the terminal that metrics leave to long file names
_NAME_CELLS = 20
_SPARK_CELLS = 40
_LEAST_CELLS = 4
_MOST_ROWS = 20
_LAST_ROWS = 10  # of a run with more
_ABSENT = "-"
_BOUNDLESS = Terminal(width=1 << 30)


def list_lines(report: ListReport, terminal: Terminal, now: datetime, *, everything: bool = False) -> list[str]:
    """Return the report as text; long runs are folded unless `everything` is asked for."""
    usable = {entry.path: entry for entry in report.entries if entry.state is EntryState.OK}
    others = [entry for entry in report.entries if entry.state is not EntryState.OK]
    lines = [f"{terminal.paint(escape(report.directory), 'bold')}: {_summary(report)}"]
    hidden: dict[str, None] = {}
    for run in report.runs:
        lines += ["", *_run(run, [usable[path] for path in run.paths], terminal, now, everything, hidden)]
    if hidden:
        names = listed(map(escape, hidden), ", ")
        lines += ["", *wrap(f"Metrics that do not fit: {names}. --json has all of them.", terminal.width)]
    if others:
        lines += ["", terminal.paint("unusable", "bold"), *_others(others, terminal, everything=everything)]
    hint = "Based on structure and index only; `ckptfmt verify` checks every byte."
    return [*lines, "", *wrap(hint, terminal.width)]


def _summary(report: ListReport) -> str:
    links = sum(Mark.LINK in entry.marks for entry in report.entries)
    directories = sum(entry.is_directory and Mark.LINK not in entry.marks for entry in report.entries)
    counts = [
        (len(report.entries) - links - directories, "file"),
        (directories, "checkpoint directory"),
        (links, "link"),
    ]
    files = " and ".join(count(number_of, noun) for number_of, noun in counts if number_of)
    states = ", ".join(f"{report.count(state):,} {state.value}" for state in EntryState if report.count(state))
    return f"{files}, {size(report.total_bytes)} ({states})"


def _run(
    run: RunInfo,
    entries: Sequence[ListEntry],
    terminal: Terminal,
    now: datetime,
    everything: bool,
    hidden: dict[str, None],
) -> Iterator[str]:
    """Yield the table of a run, and note the metrics that do not fit."""
    title = "no run id" if run.run_id is None else f"run {escape(run.run_id)}"
    yield terminal.paint(shorten(title, terminal.width, terminal.ellipsis), "bold")
    yield from _curve(run.curve, entries, terminal)
    names = list(dict.fromkeys(name for entry in entries for name in entry.metadata.metrics or ()))
    names.sort(key=lambda name: run.curve is None or name != run.curve.name)
    shown = names[: _fitting(entries, names, terminal, now)]
    hidden.update(dict.fromkeys(names[len(shown) :]))
    head, *rows = _table(entries, shown, terminal, now)
    yield head
    for first, last in _stretches(entries, everything=everything):
        if first < last:
            yield from rows[first:last]
        else:
            yield _folded(entries[last:first], terminal)


def _stretches(entries: Sequence[ListEntry], *, everything: bool) -> Iterator[tuple[int, int]]:
    """Yield the ranges of rows to show, and between them, with the ends exchanged, those to fold."""
    if everything or len(entries) <= _MOST_ROWS:
        yield 0, len(entries)
        return
    kept = {0, *range(len(entries) - _LAST_ROWS, len(entries))}
    kept |= {number for number, entry in enumerate(entries) if entry.marks}
    for shown, group in groupby(range(len(entries)), key=kept.__contains__):
        numbers = list(group)
        alone = len(numbers) == 1  # its row takes no more room than a line that says so
        yield (numbers[0], numbers[-1] + 1) if shown or alone else (numbers[-1] + 1, numbers[0])


def _folded(entries: Sequence[ListEntry], terminal: Terminal) -> str:
    """Return how many checkpoints are not shown, and at which steps if there is room for that."""
    steps = [entry.metadata.step for entry in entries if entry.metadata.step is not None]
    where = f", step {steps[0]} to {steps[-1]}" if len(steps) == len(entries) else ""
    texts = [f"  {terminal.ellipsis} {len(entries):,} more{text}; --all shows them" for text in (where, "")]
    return terminal.paint(next((text for text in texts if cells(text) <= terminal.width), texts[-1]), "dim")


def _curve(curve: MetricCurve | None, entries: Sequence[ListEntry], terminal: Terminal) -> Iterator[str]:
    """Yield the metric over the run: first value, a sparkline as wide as fits, last value, and the best one."""
    if curve is None or len(curve.values) < 2:
        return
    first, last = metric(curve.values[0]), metric(curve.values[-1])
    best = [entry.metadata.metrics or {} for entry in entries if entry.path == curve.best]
    tail = f", best {metric(best[0][curve.name])}" if best else ""
    room = terminal.width - cells(f"   {first}  {last}{tail}")
    name = shorten(escape(curve.name), max(min(room - _LEAST_CELLS, _NAME_CELLS), _LEAST_CELLS), terminal.ellipsis)
    line = sparkline(curve.values, max(min(room - cells(name), _SPARK_CELLS), _LEAST_CELLS), terminal)
    first, last = (terminal.paint(metric(value), _value_style(value)) for value in (curve.values[0], curve.values[-1]))
    yield f"  {terminal.paint(name, 'dim')} {first} {line} {last}{tail}"


def _fitting(entries: Sequence[ListEntry], names: Sequence[str], terminal: Terminal, now: datetime) -> int:
    """Return how many of the metrics fit, in their order."""
    head = _table(entries, [], _BOUNDLESS, now)[0]
    longest = max(cells(escape(_name(entry))) for entry in entries)
    used = cells(head.removesuffix("file")) + min(longest, _FILE_CELLS)
    for position, name in enumerate(names):
        values = (metric(facts[name]) for entry in entries if name in (facts := entry.metadata.metrics or {}))
        used += max(cells(escape(name)), *map(len, values)) + GAP
        if used > terminal.width:
            return position
    return len(names)


def _table(entries: Sequence[ListEntry], metrics: Sequence[str], terminal: Terminal, now: datetime) -> list[str]:
    columns = [
        Column("epoch", "right", leaves=1),
        Column("step", "right"),
        *(Column(name, "right", leaves=2 + len(metrics) - place) for place, name in enumerate(metrics)),
        Column("age", "right", leaves=2),
        Column("size", "right"),
        Column("mark"),
        Column("file", shrinks_to=12, alike=True),
    ]
    rows = [_row(entry, metrics, now) for entry in entries]
    filled = [at for at in range(len(columns)) if any(row[at].text not in ("", _ABSENT) for row in rows)]
    return table([columns[at] for at in filled], [[row[at] for at in filled] for row in rows], terminal, indent=2)


def _row(entry: ListEntry, metrics: Sequence[str], now: datetime) -> list[Cell]:
    facts = entry.metadata
    values = facts.metrics or {}
    return [
        Cell(number(facts.epoch)),
        Cell(number(facts.step)),
        *(
            Cell(metric(values[name]), _value_style(values[name])) if name in values else Cell(_ABSENT)
            for name in metrics
        ),
        Cell(_ABSENT if facts.created is None else age(facts.created, now)),
        Cell(size(entry.file_bytes or 0)),
        Cell(" ".join(_marks(entry)), _mark_style(entry)),
        Cell(_name(entry)),
    ]


def _name(entry: ListEntry) -> str:
    return f"{entry.name}/" if entry.is_directory else entry.name


def _value_style(value: float) -> Style:
    return "plain" if math.isfinite(value) else "bad"


def _marks(entry: ListEntry) -> Iterator[str]:
    """Yield what is special about a file; that it is the newest of its run goes without saying where it is resumed."""
    for mark in entry.marks:
        if mark is not Mark.NEWEST or Mark.RESUME not in entry.marks:
            yield mark.value


def _mark_style(entry: ListEntry) -> Style:
    return "good" if Mark.BEST in entry.marks else "plain"


def _others(entries: Sequence[ListEntry], terminal: Terminal, *, everything: bool) -> Iterator[str]:
    """Yield a table with the reason below each file; the first few unless all are asked for."""
    rest = 0 if everything or len(entries) <= _MOST_ROWS else len(entries) - _LAST_ROWS
    entries = entries[: len(entries) - rest]
    columns = [Column("state"), Column("size", "right"), Column("file", shrinks_to=12, alike=True)]
    rows = [
        (
            Cell(entry.state.value, _STYLES[entry.state]),
            "-" if entry.file_bytes is None else size(entry.file_bytes),
            _name(entry),
        )
        for entry in entries
    ]
    head, *lines = table(columns, rows, terminal, indent=2)
    yield head
    for entry, line in zip(entries, lines, strict=True):
        yield line
        for part in wrap(escape(_why(entry)), max(terminal.width - 4, 20), break_on_hyphens=False):
            yield "    " + terminal.paint(part, "dim")
    if rest:
        yield terminal.paint(f"  {terminal.ellipsis} {rest:,} more; --all shows them", "dim")


def _why(entry: ListEntry) -> str:
    if entry.writer is not None:
        return _WRITERS[entry.writer]
    return entry.error or "; ".join(str(problem) for problem in entry.problems)
