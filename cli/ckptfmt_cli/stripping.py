"""`ckptfmt prune FILE --drop ...`: a checkpoint without some of its components."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from ckptfmt._core.ops.members.strip import StripReport, strip_file
from ckptfmt._escaping import escape
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.text import size

__all__ = ["names_in", "strip"]


def names_in(options: Iterable[str]) -> list[str]:
    """Return the names in the values of a repeatable option, each of which may hold several, with commas."""
    return [name for value in options for name in value.split(",") if name]


def strip(path: str, output: str, *, drop: list[str], only: list[str], notes: bool, force: bool, as_json: bool) -> None:
    """Write the file and say what it holds."""
    if Path(output).exists() and not force:
        raise click.UsageError(f"{output} is there already: give another name, or --force to replace it.")
    with progress_line() as line:
        report = strip_file(path, output, drop=drop, only=only, notes=notes, progress=line.update if line else None)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(_lines(report))


def _lines(report: StripReport) -> Iterable[str]:
    sizes = f"{size(report.file_bytes)} of {size(report.source_bytes)}"
    yield f"{escape(report.path)}: {sizes}: {', '.join(map(escape, report.kept)) or 'nothing'}"
    yield f"without {', '.join(map(escape, report.dropped)) or 'anything left out'}"
