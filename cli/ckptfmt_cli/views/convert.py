"""Reports of conversions as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ckptfmt._core.interop.findings import Findings
from ckptfmt._core.ops.conversion.convert_tree import Failure, TreeReport
from ckptfmt._core.ops.conversion.report import Alias, ConvertReport
from ckptfmt._escaping import escape
from ckptfmt_cli.messages import error_line
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import count, listed, shorten, size
from ckptfmt_cli.views.component_names import is_unnamed

__all__ = ["convert_lines", "converted_line", "failed_line", "finding_lines", "tree_summary"]

_LABEL = 11
_IDENTITY = 16  # hexadecimal digits; 64 bits distinguish all checkpoints that anybody has
_SHOWN = 12  # lines of one kind; JSON has all of them


def convert_lines(report: ConvertReport, terminal: Terminal) -> list[str]:
    """Return the report of one conversion: where the target is, what was found, what is not as it was."""
    return [converted_line(report, terminal), "", *_labelled(_facts(report), terminal)]


def converted_line(report: ConvertReport, terminal: Terminal) -> str:
    """Return one line about a source that was converted."""
    facts = f"{count(report.tensors, 'tensor')}, {size(report.tensor_bytes)}"
    compared = "" if report.compared is None else ", every value compared"
    done = terminal.paint("ok", "good")
    return f"{escape(report.source)} -> {escape(report.target)}: {done}: {facts}{compared}"


def failed_line(failure: Failure, terminal: Terminal) -> str:
    """Return one line about a source that was not converted."""
    line = error_line(failure.error)
    path = escape(failure.source)
    reason = line.removeprefix(f"{path}: ")
    return f"{path}: {terminal.paint('not converted', 'bad')}: {reason}"


def tree_summary(report: TreeReport) -> str:
    """Return how many sources were converted, and how many failed."""
    nbytes = sum(item.target_bytes for item in report.converted)
    failed = f", {len(report.failed):,} failed" if report.failed else ""
    return f"{count(len(report.converted), 'checkpoint')} converted ({size(nbytes)}){failed}"


def _labelled(texts: Iterable[tuple[str, str]], terminal: Terminal) -> list[str]:
    room = max(terminal.width - 2 - _LABEL, 20)
    return [
        "  " + terminal.paint(label.ljust(_LABEL), "dim") + shorten(escape(text), room, terminal.ellipsis)
        for label, text in texts
    ]


def _facts(report: ConvertReport) -> Iterator[tuple[str, str]]:
    written = f" written by {report.findings.producer}" if report.findings.producer else ""
    yield "source", f"{report.form}{written}, {size(report.source_bytes)}"
    yield "target", f"{report.target_form}, {size(report.target_bytes)}"
    if report.identity is not None:
        yield "identity", report.identity[:_IDENTITY]
    if report.epoch is not None:
        yield "epoch", str(report.epoch)
    if report.step is not None:
        yield "step", str(report.step)
    if named := [name for name in report.components if not is_unnamed(name)]:
        yield "components", listed(named, ", ")
    yield from _lines("tied", [_alias(alias) for alias in report.aliases])
    yield from _finding_texts(report.findings)


def _alias(alias: Alias) -> str:
    component = "" if is_unnamed(alias.component) else f"{alias.component} "
    return f"{component}{alias.tensor}: {alias.places} names"


def finding_lines(findings: Findings, terminal: Terminal) -> list[str]:
    """Return the findings about a source: what was recovered, became inert data or was left out."""
    return _labelled(_finding_texts(findings), terminal)


def _finding_texts(findings: Findings) -> Iterator[tuple[str, str]]:
    yield from _lines("recovered", _counted(findings.modules))
    yield from _lines("inert", _counted(findings.inert))
    yield from _lines("left out", [f"{item.what}{_times(item.times)}: {item.why}" for item in findings.dropped])
    yield from _lines("note", findings.notes)


def _counted(names: Mapping[str, int]) -> list[str]:
    return [f"{name}{_times(number)}" for name, number in names.items()]


def _times(number: int) -> str:
    return f" ({number:,} times)" if number > 1 else ""


def _lines(label: str, texts: list[str] | tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield one line for each text, the first one with the label."""
    for position, text in enumerate(texts[:_SHOWN]):
        yield label if position == 0 else "", text
    if len(texts) > _SHOWN:
        yield "", f"and {len(texts) - _SHOWN:,} more; --json lists all of them"
