"""`ListReport` as text: one table for each run, then the unusable files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
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
_BOUNDLESS = Terminal(width=1 << 30)


def list_lines(report: ListReport, terminal: Terminal, now: datetime) -> list[str]:
    """Return the report as text."""
    usable = [entry for entry in report.entries if entry.state is EntryState.OK]
    others = [entry for entry in report.entries if entry.state is not EntryState.OK]
    lines = [f"{terminal.paint(escape(report.directory), 'bold')}: {_summary(report)}"]
    if usable:
        lines += _usable(usable, report.runs, terminal, now)
    if others:
        lines += ["", terminal.paint("unusable", "bold"), *_others(others, terminal)]
    hint = "Based on structure and index only; `ckptfmt verify` checks every byte."
    return [*lines, "", *wrap(hint, terminal.width)]


def _summary(report: ListReport) -> str:
    links = sum(Mark.LINK in entry.marks for entry in report.entries)
    files = count(len(report.entries) - links, "file") + (f" and {count(links, 'link')}" if links else "")
    states = ", ".join(f"{report.count(state):,} {state.value}" for state in EntryState if report.count(state))
    return f"{files}, {size(report.total_bytes)} ({states})"


def _usable(entries: Sequence[ListEntry], runs: Sequence[RunInfo], terminal: Terminal, now: datetime) -> Iterator[str]:
    """Yield one table for each run, all with the same columns and widths, and the metrics that do not fit."""
    names = list(dict.fromkeys(name for entry in entries for name in entry.metadata.metrics or ()))
    looked_at = [run.curve.name for run in runs if run.curve is not None]
    names.sort(key=lambda name: name not in looked_at)
    shown = names[: _fitting(entries, names, terminal, now)]
    head, *rows = _table(entries, shown, terminal, now)
    lines = iter(rows)
    by_path = {entry.path: entry for entry in entries}
    for run in runs:
        title = "no run id" if run.run_id is None else f"run {escape(run.run_id)}"
        yield ""
        yield terminal.paint(shorten(title, terminal.width, terminal.ellipsis), "bold")
        yield from _curve(run.curve, by_path, terminal)
        yield head
        yield from islice(lines, len(run.paths))
    if hidden := names[len(shown) :]:
        yield ""
        yield from wrap(
            f"Metrics that do not fit: {listed(map(escape, hidden), ', ')}. --json has all of them.", terminal.width
        )


def _curve(curve: MetricCurve | None, entries: Mapping[str, ListEntry], terminal: Terminal) -> Iterator[str]:
    """Yield the metric over the run: first value, a sparkline as wide as fits, last value, and the best one."""
    if curve is None or len(curve.values) < 2:
        return
    first, last = metric(curve.values[0]), metric(curve.values[-1])
    if curve.best is not None:
        last += f", best {metric((entries[curve.best].metadata.metrics or {})[curve.name])}"
    room = terminal.width - cells(f"   {first}  {last}")
    name = shorten(escape(curve.name), max(min(room - _LEAST_CELLS, _NAME_CELLS), _LEAST_CELLS), terminal.ellipsis)
    line = sparkline(curve.values, max(min(room - cells(name), _SPARK_CELLS), _LEAST_CELLS), terminal)
    yield f"  {terminal.paint(name, 'dim')} {first} {line} {last}"


def _fitting(entries: Sequence[ListEntry], names: Sequence[str], terminal: Terminal, now: datetime) -> int:
    """Return how many of the metrics fit, in their order."""
    head = _table(entries, [], _BOUNDLESS, now)[0]
    longest = max(cells(escape(entry.name)) for entry in entries)
    used = cells(head.removesuffix("file")) + min(longest, _FILE_CELLS)
    for position, name in enumerate(names):
        values = (metric(facts[name]) for entry in entries if name in (facts := entry.metadata.metrics or {}))
        used += max(cells(escape(name)), *map(len, values)) + GAP
        if used > terminal.width:
            return position
    return len(names)


def _table(entries: Sequence[ListEntry], metrics: Sequence[str], terminal: Terminal, now: datetime) -> list[str]:
    marked = any(entry.marks for entry in entries)
    columns = [
        Column("epoch", "right", leaves=1),
        Column("step", "right"),
        *(Column(name, "right", leaves=2 + len(metrics) - place) for place, name in enumerate(metrics)),
        Column("age", "right", leaves=2),
        Column("size", "right"),
        *([Column("mark")] if marked else []),
        Column("file", shrinks_to=12),
    ]
    return table(columns, [_row(entry, metrics, now, marked=marked) for entry in entries], terminal, indent=2)


def _row(entry: ListEntry, metrics: Sequence[str], now: datetime, *, marked: bool) -> list[str | Cell]:
    facts = entry.metadata
    values = facts.metrics or {}
    return [
        number(facts.epoch),
        number(facts.step),
        *(metric(values[name]) if name in values else "-" for name in metrics),
        "-" if facts.created is None else age(facts.created, now),
        size(entry.file_bytes or 0),
        *([Cell(" ".join(_marks(entry)), _mark_style(entry))] if marked else []),
        entry.name,
    ]


def _marks(entry: ListEntry) -> Iterator[str]:
    """Yield what is special about a file; that it is the newest of its run goes without saying where it is resumed."""
    for mark in entry.marks:
        if mark is not Mark.NEWEST or Mark.RESUME not in entry.marks:
            yield mark.value


def _mark_style(entry: ListEntry) -> Style:
    return "good" if Mark.BEST in entry.marks else "plain"


def _others(entries: Sequence[ListEntry], terminal: Terminal) -> Iterator[str]:
    """Yield a table with the reason below each file."""
    columns = [Column("state"), Column("size", "right"), Column("file", shrinks_to=12)]
    rows = [
        (
            Cell(entry.state.value, _STYLES[entry.state]),
            "-" if entry.file_bytes is None else size(entry.file_bytes),
            entry.name,
        )
        for entry in entries
    ]
    head, *lines = table(columns, rows, terminal, indent=2)
    yield head
    for entry, line in zip(entries, lines, strict=True):
        yield line
        for part in wrap(escape(_why(entry)), max(terminal.width - 4, 20), break_on_hyphens=False):
            yield "    " + terminal.paint(part, "dim")


def _why(entry: ListEntry) -> str:
    if entry.writer is not None:
        return _WRITERS[entry.writer]
    return entry.error or "; ".join(str(problem) for problem in entry.problems)
