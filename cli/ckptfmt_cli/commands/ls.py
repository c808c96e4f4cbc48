"""`ckptfmt ls`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Literal

import click

from ckptfmt._core.ops.directory.listing import list_directory
from ckptfmt_cli.inert import inert_option
from ckptfmt_cli.render import say, write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.listing import list_lines

__all__ = ["command"]


@click.command(
    "ls",
    short_help="List the checkpoints in a directory.",
    epilog="""\b
Examples:
  ckptfmt ls runs/digits
  ckptfmt ls --metric val_bleu --mode max runs/translate
  ckptfmt ls --json | jq -r '.entries[] | select(.state != "ok").path'
""",
)
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path())
@click.option("--metric", metavar="NAME", help="The metric to draw and to judge by, instead of the likely one.")
@click.option("--mode", type=click.Choice(["min", "max"]), help="Which way it is better, if its name does not tell.")
@inert_option
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    directory: str,
    metric: str | None,
    mode: Literal["min", "max"] | None,
    inert: tuple[str, ...],
    as_json: bool,
) -> None:
    """List the checkpoints in a directory: run, epoch, step, metrics, age and size of each, newest and best marked.

    The order is that of the training, by what is written in the files: run, step, epoch. Names and file times do
    not matter. Files that cannot be used stand apart: incomplete (cut off, or a temporary file that was never
    published), damaged, unreadable. This is told from the structure and the index of each file; `ckptfmt verify`
    reads the data as well. *.pth and *.pt files are listed, too. Directories in DIR are not entered.

    Exit code: 0 listed, 1 there is nothing to list, 3 DIR cannot be read.
    """
    report = list_directory(directory, metric=metric, mode=mode, inert=inert)
    if as_json:
        write_json(report.to_json())
    elif report.entries:
        write_lines(list_lines(report, Terminal.of(sys.stdout), datetime.now(UTC)))
    if not report.entries:
        say(f"{directory}: no checkpoint directly in this directory")
        ctx.exit(1)
