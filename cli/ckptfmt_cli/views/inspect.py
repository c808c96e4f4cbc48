"""`InspectReport` as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from textwrap import wrap

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.ops.inspection.inspect import InspectReport
from ckptfmt._core.ops.report_json import value_json
from ckptfmt._escaping import escape
from ckptfmt_cli.table import Cell, Column, table
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import ago, cells, count, metric, shorten, size, timestamp
from ckptfmt_cli.views.state import state_texts

__all__ = ["fact_texts", "inspect_lines", "metadata_texts"]

_SHOWN_NOTES = 12  # entries of the user's notes and of the metrics; JSON has all of them
_LINEAGE = "lineage"
_ANCESTOR = (("run", "run_id"), ("step", "step"), ("epoch", "epoch"))
_SHORT_IDENTITY = 16  # hexadecimal digits; 64 bits distinguish all checkpoints that anybody has
_LABEL = 11
_MOST_LINES = 4  # for one fact about the state


def inspect_lines(report: InspectReport, terminal: Terminal, now: datetime, tensors: Iterable[str] = ()) -> list[str]:
    """Return the report as text: facts, components, totals, with the lines about the tensors in between."""
    lines = [terminal.paint(escape(report.path), "bold"), "", *_facts(report, terminal, now)]
    if report.components or report.opaque:
        lines += ["", *_components(report, terminal)]
    if shown := list(tensors):
        lines += ["", *shown]
    if report.tensors:
        lines += ["", *wrap(_totals(report), terminal.width)]
    return lines


def _facts(report: InspectReport, terminal: Terminal, now: datetime) -> Iterator[str]:
    room = max(terminal.width - 2 - _LABEL, 20)
    for label, text in metadata_texts(report, now):
        yield _fact(label, shorten(escape(text), room, terminal.ellipsis), terminal)
    for label, text in state_texts(report.state):
        lines = wrap(escape(text), room, max_lines=_MOST_LINES, placeholder=f" {terminal.ellipsis}")
        for position, line in enumerate(lines):
            yield _fact(label if position == 0 else "", shorten(line, room, terminal.ellipsis), terminal)


def _fact(label: str, text: str, terminal: Terminal) -> str:
    head = shorten(escape(label), _LABEL - 1, terminal.ellipsis)
    return "  " + terminal.paint(head + " " * (_LABEL - cells(head)), "dim") + text


def fact_texts(report: InspectReport, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the label and text of each fact about file and training; an empty label repeats the one before."""
    yield from metadata_texts(report, now)
    yield from state_texts(report.state)


def metadata_texts(report: InspectReport, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the label and text of each fact about the file; likewise."""
    codecs = ", ".join(dict.fromkeys(member.codec for component in report.components for member in component.members))
    yield "size", f"{size(report.file_bytes)} ({count(report.file_bytes, 'byte')})"
    version = "" if report.version is None else " {}.{}".format(*report.version)
    yield "format", report.form + version + (f", codec {codecs}" if codecs else "")
    if report.identity is not None:
        yield "identity", report.identity[:_SHORT_IDENTITY]
    if report.required_features:
        yield "requires", ", ".join(report.required_features)
    yield from _metadata_texts(report.metadata, now)


def _metadata_texts(metadata: Metadata, now: datetime) -> Iterator[tuple[str, str]]:
    if metadata.run_id is not None:
        yield "run", metadata.run_id
    if metadata.generation is not None:
        yield "generation", str(metadata.generation)
    if metadata.epoch is not None:
        yield "epoch", str(metadata.epoch)
    if metadata.step is not None:
        yield "step", str(metadata.step)
    if metadata.created is not None:
        yield "created", f"{timestamp(metadata.created)} ({ago(metadata.created, now)})"
    if metadata.producer is not None:
        yield "producer", metadata.producer
    yield from _lineage(metadata)
    if metadata.metrics is not None:
        yield from _entries("metrics", {name: metric(value) for name, value in metadata.metrics.items()})
    if metadata.user is not None:
        notes = {name: _note(value) for name, value in metadata.user.items() if name != _LINEAGE}
        yield from _entries("user", notes)


def _lineage(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """Yield the checkpoint that the run started from, the one before that, and so on."""
    noted = (metadata.user or {}).get(_LINEAGE)
    ancestors = [entry for entry in noted if isinstance(entry, Mapping)] if isinstance(noted, list) else []
    texts = [_ancestor(entry) for entry in ancestors]
    if metadata.parent is not None and not texts:
        texts = [metadata.parent.hex()[:_SHORT_IDENTITY]]
    for number, text in enumerate(texts[:_SHOWN_NOTES]):
        yield "parent" if number == 0 else "", f"{'of ' if number else ''}{text}"


def _ancestor(entry: Mapping[str, object]) -> str:
    facts = [f"{fact} {entry[key]}" for fact, key in _ANCESTOR if entry.get(key) is not None]
    identity = str(entry.get("identity", ""))[:_SHORT_IDENTITY]
    return ", ".join([str(entry.get("name") or "a file"), *facts, identity])


def _entries(label: str, entries: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield one line for each entry, the first one with the label."""
    for position, (name, text) in enumerate(entries.items()):
        if position == _SHOWN_NOTES:
            yield "", f"and {len(entries) - position:,} more; --json lists all of them"
            return
        yield label if position == 0 else "", f"{name} {text}"


def _note(value: object) -> str:
    return json.dumps(value_json(value), ensure_ascii=False)


def _components(report: InspectReport, terminal: Terminal) -> list[str]:
    compressed = any(component.codec != "none" for component in report.components)
    columns = [
        Column("component", shrinks_to=12),
        Column("role", leaves=1),
        Column("tensors", "right", leaves=2),
        Column("elements", "right", leaves=3),
        Column("size", "right"),
        *([Column("stored", "right"), Column("codec", shrinks_to=5)] if compressed else []),
    ]
    rows: list[list[str | Cell]] = []
    for item in report.components:
        facts = [item.role.value, f"{item.tensors:,}", f"{item.elements:,}", size(item.logical_bytes)]
        rows.append([item.name, *facts, *([size(item.stored_bytes), item.codec] if compressed else [])])
    for member in report.opaque:
        facts = [member.kind, "-", "-", size(member.logical_bytes)]
        rows.append([member.name, *facts, *([size(member.stored_bytes), member.codec] if compressed else [])])
    stored = sum(item.stored_bytes for item in report.opaque)
    totals = [
        *("total", "", f"{len(report.tensors):,}", f"{report.elements:,}"),
        size(sum(item.logical_bytes for item in report.components) + sum(item.logical_bytes for item in report.opaque)),
        *([size(sum(item.stored_bytes for item in report.components) + stored), ""] if compressed else []),
    ]
    return table(columns, rows, terminal, footer=totals)


def _totals(report: InspectReport) -> str:
    by_dtype = ", ".join(f"{dtype} {size(nbytes)}" for dtype, nbytes in report.bytes_by_dtype.items())
    parameters = f", {report.parameters:,} parameters" if report.parameters else ""
    return f"{count(len(report.tensors), 'tensor')}{parameters}, {size(report.tensor_bytes)}: {by_dtype}"
