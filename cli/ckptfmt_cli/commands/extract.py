"""`ckptfmt extract`."""

from __future__ import annotations

import click

from ckptfmt._core.ops.members.extract import extract
from ckptfmt._escaping import escape
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.text import count, size

__all__ = ["command"]


@click.command(
    "extract",
    short_help="Write the members of a checkpoint to a directory.",
    epilog="""\b
Examples:
  ckptfmt extract last.ckptfmt -o members
  ckptfmt extract last.ckptfmt --only net -o weights
  ckptfmt extract last.ckptfmt -o out && ckptfmt pack out -o same.ckptfmt
""",
)
@click.argument("path", metavar="FILE", type=click.Path())
@click.option("-o", "--output", metavar="DIR", required=True, type=click.Path(), help="The directory to make.")
@click.option("--only", metavar="NAMES", multiple=True, help="Only these components or members; comma or repeat.")
@click.option("--json", "as_json", is_flag=True, help="Write what was done as JSON.")
def command(path: str, output: str, only: tuple[str, ...], as_json: bool) -> None:
    """Write every member of a checkpoint as a file: net.safetensors, optimizer.msgpack and so on.

    Each is verified and decoded, and a complete file of its format, for any program. +checkpoint.json holds the facts
    about the checkpoint; with it, `ckptfmt pack` makes the same bytes again. DIR has to be new or empty, and appears
    as a whole or not at all.

    Exit code: 0 done, 1 FILE is damaged or has no such component, 3 it cannot be read or DIR not be written.
    """
    names = [name for part in only for name in part.split(",") if name]
    with progress_line() as line:
        report = extract(path, output, names=names, progress=line.update if line else None)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines([f"{escape(report.directory)}: {count(len(report.files), 'file')}, {size(report.file_bytes)}"])
