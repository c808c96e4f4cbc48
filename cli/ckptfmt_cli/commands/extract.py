"""`ckptfmt extract`."""

from __future__ import annotations

from itertools import chain

import click

from ckptfmt._core.ops.members.extract import extract
from ckptfmt_cli.options import json_option
from ckptfmt_cli.param_types import NAMES
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.views.members import extract_lines

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
@click.option("-o", "--output", metavar="DIR", required=True, type=click.Path(), help="The directory to create.")
@click.option(
    "--only", metavar="NAMES", type=NAMES, multiple=True, help="Only these components; separate by commas or repeat."
)
@json_option
def command(path: str, output: str, only: tuple[tuple[str, ...], ...], as_json: bool) -> None:
    """Write every member of a checkpoint to a file of its own: net.safetensors, optimizer.msgpack and so on.

    Each file is decoded, verified and complete in its format, so that any program can read it. +checkpoint.json holds
    the facts about the checkpoint; with it, `ckptfmt pack` rebuilds the same bytes. DIR must be new or empty. It
    appears completely or not at all.

    Exit code: 0 done, 1 FILE is damaged or has no such component, 3 FILE cannot be read or DIR cannot be written.
    """
    with progress_line() as line:
        report = extract(path, output, names=list(chain(*only)), progress=line.update if line else None)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(extract_lines(report))
