"""`DiffReport` as text: facts, components, values, tensors, and the verdict."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap

from ckptfmt._core.interop.base import TensorInfo
from ckptfmt._core.ops.comparison.diff import ComponentDifference, DiffReport, Side
from ckptfmt._core.ops.comparison.tensor_changes import Change, TensorChange
from ckptfmt._core.ops.comparison.trees import ABSENT, LeafChange
from ckptfmt._core.ops.inspection.inspect import InspectReport
from ckptfmt._core.ops.report_json import tree_json
from ckptfmt._escaping import escape
from ckptfmt_cli.table import Cell, Column, table
from ckptfmt_cli.terminal import Style, Terminal
from ckptfmt_cli.text import count, listed, metric, shape, shorten
from ckptfmt_cli.views.change_rows import MOST_TENSORS, ChangeRow, fold_changes, info_of, shown_name
from ckptfmt_cli.views.component_names import is_unnamed, role_name, tensor_name

__all__ = ["SHOWN_CHANGES", "diff_lines"]

SHOWN_CHANGES = 40
"""Tensors, and values, shown unless all are asked for."""

_LABEL = 10
_STYLES: dict[Change, Style] = {Change.ADDED: "good", Change.REMOVED: "bad"}
_SIDES: dict[Side, tuple[str, Style]] = {Side.BEFORE: ("removed", "bad"), Side.AFTER: ("added", "good")}
_VERDICTS: dict[bool | None, tuple[str, Style]] = {
    True: ("yes", "good"),
    False: ("no", "bad"),
    None: ("unknown", "warn"),
}


def diff_lines(report: DiffReport, terminal: Terminal, *, everything: bool) -> list[str]:
    """Return the report as text."""
    lines = [_side("before", report.before, terminal), _side("after", report.after, terminal)]
    if report.facts:
        lines += ["", *_facts(report, terminal)]
    lines += ["", *_components(report, terminal)]
    if values := _shown_values(report):
        lines += ["", *_values(values, terminal, everything=everything)]
    if report.tensors:
        lines += ["", *_tensors(report, terminal, everything=everything)]
    return [*lines, "", *_verdict(report, terminal)]


def _side(label: str, report: InspectReport, terminal: Terminal) -> str:
    step = "" if report.metadata.step is None else f", step {report.metadata.step}"
    text = f"{escape(report.path)} ({report.form}{step})"
    return terminal.paint(label.ljust(_LABEL), "dim") + shorten(text, terminal.width - _LABEL, terminal.ellipsis)


def _facts(report: DiffReport, terminal: Terminal) -> list[str]:
    columns = [Column("fact", shrinks_to=12), Column("before", shrinks_to=11), Column("after", shrinks_to=11)]
    return table(columns, [(fact.name, *_texts(fact.before, fact.after)) for fact in report.facts], terminal)


def _components(report: DiffReport, terminal: Terminal) -> list[str]:
    columns = [Column("component", shrinks_to=9), Column("difference", shrinks_to=16)]
    rows = [(_shown(component.name, report), _component(component)) for component in report.components]
    return table(columns, rows, terminal)


def _shown(name: str, report: DiffReport) -> str:
    """Return the name of a component; one without a name is called after its role."""
    if not is_unnamed(name):
        return name
    components = (*report.before.components, *report.after.components)
    return [role_name(component) for component in components if is_unnamed(component.name)][-1]


def _component(item: ComponentDifference) -> Cell:
    if item.side is not Side.BOTH:
        tensors = f", {count(item.tensors, 'tensor')}" if item.tensors else ""
        word, style = _SIDES[item.side]
        return Cell(f"{word}{tensors}", style)
    if item.same:
        return Cell("same", "dim")
    if item.opaque:
        return Cell("content differs", "warn")
    if item.generators:
        *most, last = item.generators
        names = f"{', '.join(most)} and {last}" if most else last
        return Cell(f"{names} {'generators differ' if most else 'generator differs'}", "warn")
    parts = [count(item.values, "value")] if item.values else []
    if item.tensors:
        parts.append(count(item.tensors, "tensor"))
    verb = "differs" if item.values + item.tensors == 1 else "differ"
    return Cell(f"{' and '.join(parts)} {verb}, {count(item.equal, 'tensor')} equal", "warn")


def _shown_values(report: DiffReport) -> list[LeafChange]:
    """Return the values that differ, without those that random generators consist of."""
    random = {component.name for component in report.components if component.generators}
    return [leaf for leaf in report.values if leaf.component not in random]


def _values(values: Sequence[LeafChange], terminal: Terminal, *, everything: bool) -> list[str]:
    columns = [
        Column("value", shrinks_to=20, alike=True),
        Column("before", shrinks_to=12),
        Column("after", shrinks_to=12),
    ]
    shown = values if everything else values[:SHOWN_CHANGES]
    rows = [
        (item.place, *_texts(*(side if side is ABSENT else tree_json(side) for side in sides)))
        for item in shown
        for sides in [(item.before, item.after)]
    ]
    return [*table(columns, rows, terminal), *_more(len(values) - len(shown), terminal)]


def _tensors(report: DiffReport, terminal: Terminal, *, everything: bool) -> list[str]:
    random = {component.name for component in report.components if component.generators}
    changes = [change for change in report.tensors if not _components_of(change) & random]
    fold = not everything and len(changes) > MOST_TENSORS
    rows = fold_changes(changes) if fold else [ChangeRow((change,), _name(change)) for change in changes]
    shown = rows if everything else rows[:SHOWN_CHANGES]
    counts = Counter(change.change for change in report.tensors)
    total = ", ".join(f"{number:,} {change.value}" for change, number in counts.items())
    return [
        *(_change_table(report, shown, terminal, folded=fold) if shown else []),
        *_more(len(rows) - len(shown), terminal),
        *([""] if shown else []),
        *wrap(f"{count(len(report.tensors), 'tensor')}: {total}; {report.equal_tensors:,} equal", terminal.width),
    ]


def _change_table(report: DiffReport, rows: Sequence[ChangeRow], terminal: Terminal, *, folded: bool) -> list[str]:
    compared = any(change.values is not None for row in rows for change in row.changes)
    named = not all(is_unnamed(item.name) for item in report.components)
    columns = [
        Column("change"),
        *([Column("component", shrinks_to=9, leaves=3)] if named else []),
        *([Column("tensors", "right", leaves=5)] if folded else []),
        Column("module" if folded else "tensor", shrinks_to=12, alike=True, within="component"),
        *(
            [
                Column("max abs", "right"),
                Column("max rel", "right", leaves=2),
                Column("cosine", "right", leaves=1),
                Column("changed", "right", leaves=4),
            ]
            if compared
            else [Column("parts" if folded else "dtype and shape", shrinks_to=14, leaves=4)]
        ),
    ]
    cells = [_row(report, row, compared=compared, named=named, folded=folded) for row in rows]
    hint = [terminal.paint("by module; --all shows each tensor", "dim")] if folded else []
    return [*table(columns, cells, terminal), *hint]


def _row(report: DiffReport, row: ChangeRow, *, compared: bool, named: bool, folded: bool) -> list[str | Cell]:
    first = row.changes[0]
    within = all(report.within(change) for change in row.changes)
    word = Cell("within" if within else first.change.value, "dim" if within else _STYLES.get(first.change, "warn"))
    number_of = [f"{len(row.changes):,}"] if folded else []
    head: list[str | Cell] = [word, *([_component_of(first)] if named else []), *number_of, row.name]
    if not compared:
        return [*head, ", ".join(row.parts) if folded else _form(first)]
    found = [change.values for change in row.changes if change.values is not None]
    if not found:
        return [*head, "-", "-", "-", "-"]
    cosines = [item.cosine for item in found if item.cosine is not None]
    elements = sum(item.elements for item in found)
    return [
        *head,
        metric(max(item.max_abs for item in found)),
        metric(max(item.max_rel for item in found)),
        f"{min(cosines):.6f}" if cosines else "-",
        f"{sum(item.changed for item in found) / elements if elements else 0.0:.1%}",
    ]


def _components_of(change: TensorChange) -> set[str]:
    return {side.component for side in (change.before, change.after) if side is not None}


def _component_of(change: TensorChange) -> str:
    sides = (side.component for side in (change.before, change.after) if side is not None)
    return next((name for name in sides if not is_unnamed(name)), "-")


def _name(change: TensorChange) -> str:
    before, after = change.before, change.after
    if change.change is not Change.RENAMED or before is None or after is None:
        return shown_name(change)
    to = after.name if before.component == after.component else tensor_name(after, " ")
    return f"{before.name} -> {to}"


def _form(change: TensorChange) -> str:
    before, after = change.before, change.after
    if before is None or after is None or change.change not in (Change.RESHAPED, Change.RETYPED):
        return _typed(info_of(change))
    return f"{_typed(before)} -> {_typed(after)}"


def _typed(info: TensorInfo) -> str:
    return f"{info.dtype} {shape(info.shape)}"


def _verdict(report: DiffReport, terminal: Terminal) -> Iterator[str]:
    if report.same and report.tolerance is not None and report.tensors:
        yield f"Same content within the tolerance of {metric(report.tolerance)}."
    word, style = _VERDICTS[report.resume.identical]
    question = "Would both resume identically? "
    reason = wrap(f"{question}{word}: {escape(report.resume.reason)}", terminal.width)
    reason[0] = reason[0].replace(question + word, question + terminal.paint(word, style), 1)
    yield from reason


def _more(rest: int, terminal: Terminal) -> list[str]:
    return [terminal.paint(f"{terminal.ellipsis} {rest:,} more; --all shows them", "dim")] if rest > 0 else []


def _texts(before: object, after: object) -> tuple[str, str]:
    """Return two JSON values for people: floats with as few digits as show the difference."""
    if isinstance(before, float) and isinstance(after, float) and metric(before) != metric(after):
        return metric(before), metric(after)
    return _plain(before), _plain(after)


def _plain(value: object) -> str:
    """Return a JSON value for people, cut if it is long."""
    if value is ABSENT:
        return "-"
    if isinstance(value, list) and len(value) > _FEW:
        return f"[{listed((_plain(item) for item in value), ', ')}]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_FEW = 5
