"""`PickleImportsReport` as text: a table of names, the reasons to refuse the file, and one sentence."""

from __future__ import annotations

from textwrap import wrap

from ckptfmt._core.ops.conversion.pickle_imports import PickleImportsReport
from ckptfmt._core.pth.audit import NameUse
from ckptfmt._core.pth.names.globals import Verdict
from ckptfmt._escaping import escape
from ckptfmt_cli.table import Cell, Column, table
from ckptfmt_cli.terminal import Style, Terminal
from ckptfmt_cli.text import count
from ckptfmt_cli.views.convert import finding_lines

__all__ = ["pickle_imports_lines"]

_STYLES: dict[Verdict, Style] = {Verdict.KNOWN: "good", Verdict.UNKNOWN: "warn", Verdict.REFUSED: "bad"}


def pickle_imports_lines(report: PickleImportsReport, terminal: Terminal) -> list[str]:
    """Return the names that the pickles of a file would import, and the verdict on each."""
    lines = [f"{terminal.paint(escape(report.path), 'bold')}: {report.form}", ""]
    names = report.audit.names
    if names:
        columns = [
            Column("name", shrinks_to=24),
            Column("times", "right", leaves=1),
            Column("use", leaves=2),
            Column("verdict"),
            Column("in", shrinks_to=8),
        ]
        rows = [_row(use) for use in names]
        lines += [*table(columns, rows, terminal), ""]
    lines += [f"refused: {escape(use.name)}: {escape(use.reason)}" for use in report.audit.refused]
    lines += [f"refused: the file {escape(violation)}" for _, violation in report.audit.violations]
    if report.fault is not None:
        lines.append(f"broken: {escape(report.fault)}")
    findings = [] if report.findings is None else finding_lines(report.findings, terminal)
    return [*lines, *findings, *([""] if findings else []), *wrap(_sentence(report), terminal.width)]


def _row(use: NameUse) -> list[str | Cell]:
    verdict = Cell(use.verdict.value, _STYLES.get(use.verdict, "plain"))
    return [use.name, f"{use.times:,}", "called" if use.called else "named", verdict, use.part]


def _sentence(report: PickleImportsReport) -> str:
    if not report.safe:
        return "Loading this file with pickle would run code. Nothing was run."
    if not report.audit.names:
        return "The pickles in this file import nothing."
    unknown = len(report.audit.unknown)
    rest = f"; {count(unknown, 'name')} from other packages would become inert data" if unknown else ""
    return f"Nothing in this file is refused{rest}."
