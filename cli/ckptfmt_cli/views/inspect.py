"""`InspectReport` as text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

from ckptfmt.format.index import Metadata
from ckptfmt.ops.inspect import InspectReport
from ckptfmt.ops.jsonform import value_json
from ckptfmt_cli.table import Cell, Column, table
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import ago, cells, count, escape, metric, shape, shorten, size, timestamp

__all__ = ["SHOWN_TENSORS", "inspect_lines"]

SHOWN_TENSORS = 40
"""Tensors shown unless all are asked for: what fits on a screen."""

_SHOWN_NOTES = 12  # entries of the user's notes and of the metrics; JSON has them all
_SHORT_IDENTITY = 16  # hexadecimal digits; 64 bits tell any two checkpoints of a person apart
_LABEL = 11
_NAMED_COMPONENTS, _NAMED_CELLS = 4, 45


def inspect_lines(report: InspectReport, terminal: Terminal, now: datetime, *, all_tensors: bool) -> list[str]:
    """Return the report as text: facts, components, tensors."""
    lines = [terminal.paint(escape(report.path), "bold"), "", *_facts(report, terminal, now)]
    if report.components or report.opaque:
        lines += ["", *_components(report, terminal)]
    if report.tensors:
        lines += ["", *_tensors(report, terminal, all_tensors=all_tensors)]
    return lines


def _facts(report: InspectReport, terminal: Terminal, now: datetime) -> Iterator[str]:
    for label, text in _fact_texts(report, now):
        room = max(terminal.width - 2 - _LABEL, 20)
        yield "  " + terminal.paint(label.ljust(_LABEL), "dim") + shorten(escape(text), room, terminal.ellipsis)


def _fact_texts(report: InspectReport, now: datetime) -> Iterator[tuple[str, str]]:
    codecs = ", ".join(dict.fromkeys(member.codec for component in report.components for member in component.members))
    yield "size", f"{size(report.file_bytes)} ({count(report.file_bytes, 'byte')})"
    yield "format", "{}.{}".format(*report.version) + (f", codec {codecs}" if codecs else "")
    yield "identity", report.identity[:_SHORT_IDENTITY]
    if report.required_features:
        yield "requires", ", ".join(report.required_features)
    yield from _metadata_texts(report.metadata, now)


def _metadata_texts(metadata: Metadata, now: datetime) -> Iterator[tuple[str, str]]:
    if metadata.run_id is not None:
        yield "run", metadata.run_id
    if metadata.epoch is not None:
        yield "epoch", str(metadata.epoch)
    if metadata.step is not None:
        yield "step", str(metadata.step)
    if metadata.created is not None:
        yield "created", f"{timestamp(metadata.created)} ({ago(metadata.created, now)})"
    if metadata.producer is not None:
        yield "producer", metadata.producer
    if metadata.parent is not None:
        yield "parent", metadata.parent.hex()[:_SHORT_IDENTITY]
    if metadata.metrics is not None:
        yield from _entries("metrics", {name: metric(value) for name, value in metadata.metrics.items()})
    if metadata.user is not None:
        yield from _entries("user", {name: _note(value) for name, value in metadata.user.items()})


def _entries(label: str, entries: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield one line for each entry, the first one with the label."""
    for position, (name, text) in enumerate(entries.items()):
        if position == _SHOWN_NOTES:
            yield "", f"and {len(entries) - position:,} more; --json has them all"
            return
        yield label if position == 0 else "", f"{name} {text}"


def _note(value: object) -> str:
    return json.dumps(value_json(value), ensure_ascii=False)


def _components(report: InspectReport, terminal: Terminal) -> list[str]:
    compressed = any(component.codec != "none" for component in report.components)
    columns = [
        Column("component", shrinks_to=12),
        Column("kind"),
        Column("tensors", "right"),
        Column("elements", "right"),
        Column("size", "right"),
        *([Column("stored", "right"), Column("codec", shrinks_to=5)] if compressed else []),
    ]
    rows: list[list[str | Cell]] = []
    for item in report.components:
        facts = [item.kind, f"{item.tensors:,}", f"{item.elements:,}", size(item.logical_bytes)]
        rows.append([item.name, *facts, *([size(item.stored_bytes), item.codec] if compressed else [])])
    for member in report.opaque:
        facts = [member.kind, "-", "-", size(member.logical_bytes)]
        rows.append([member.name, *facts, *([size(member.stored_bytes), member.codec] if compressed else [])])
    members = [*(member for item in report.components for member in item.members), *report.opaque]
    totals = [
        *("total", "", f"{len(report.tensors):,}", f"{report.elements:,}"),
        size(sum(member.logical_bytes for member in members)),
        *([size(sum(member.stored_bytes for member in members)), ""] if compressed else []),
    ]
    return table(columns, rows, terminal, footer=totals)


def _tensors(report: InspectReport, terminal: Terminal, *, all_tensors: bool) -> list[str]:
    columns = [
        Column("component", shrinks_to=9),
        Column("tensor", shrinks_to=16),
        Column("dtype"),
        Column("shape", shrinks_to=12),
        Column("size", "right"),
    ]
    shown = report.tensors if all_tensors else report.tensors[:SHOWN_TENSORS]
    rows = [(tensor.component, tensor.name, tensor.dtype, shape(tensor.shape), size(tensor.nbytes)) for tensor in shown]
    lines = table(columns, rows, terminal)
    if len(shown) < len(report.tensors):
        rest = Counter(tensor.component for tensor in report.tensors[len(shown) :])
        lines.append(terminal.paint(terminal.ellipsis + _rest(rest), "dim"))
    by_dtype = ", ".join(f"{dtype} {size(nbytes)}" for dtype, nbytes in report.bytes_by_dtype.items())
    return [*lines, "", f"{count(len(report.tensors), 'tensor')}, {size(report.tensor_bytes)}: {by_dtype}"]


def _rest(rest: Counter[str]) -> str:
    """Return how many tensors are not shown, and of which components if these are few."""
    where = ", ".join(f"{escape(name)} {left:,}" for name, left in rest.items())
    few = f" ({where})" if len(rest) <= _NAMED_COMPONENTS and cells(where) <= _NAMED_CELLS else ""
    return f" {rest.total():,} more{few}; --all shows them"
