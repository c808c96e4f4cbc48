"""`ckptfmt inspect`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from ckptfmt.ops.inspect import inspect_file
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.inspect import SHOWN_TENSORS, inspect_lines

__all__ = ["command"]


@click.command(
    "inspect",
    short_help="Show what is in a checkpoint.",
    epilog="""\b
Examples:
  ckptfmt inspect last.ckptfmt
  ckptfmt inspect --all last.ckptfmt | grep attn
  ckptfmt inspect --json last.ckptfmt | jq .metadata.step
""",
)
@click.argument("path", metavar="FILE", type=click.Path())
@click.option("--all", "all_tensors", is_flag=True, help=f"Show every tensor, not only the first {SHOWN_TENSORS}.")
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def command(path: str, all_tensors: bool, as_json: bool) -> None:
    """Show what is in a checkpoint: run, epoch, step, metrics, components, and tensors with their dtype and shape.

    Reads the index at the end of FILE and nothing else, so it is as quick on 100 GB as on 100 KB, and says nothing
    about the data: `ckptfmt verify` does.

    Long names are shortened to fit the terminal, or 80 columns in a pipe; COLUMNS=200 makes room, JSON has them whole.

    Exit code: 0 shown, 1 the file is damaged, truncated or no checkpoint, 3 it cannot be read.
    """
    report = inspect_file(path)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(inspect_lines(report, Terminal.of(sys.stdout), datetime.now(UTC), all_tensors=all_tensors))
