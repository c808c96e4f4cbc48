"""`ckptfmt ls`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Literal

import click

from ckptfmt._core.ops.directory.listing import list_directory
from ckptfmt_cli.options import inert_option, json_option
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
@click.option(
    "--metric",
    metavar="NAME",
    help="Metric to draw, and to find the best by; by default that of the run's keep_best, or the most likely one.",
)
@click.option(
    "--mode", type=click.Choice(["min", "max"]), help="Whether lower or higher is better, if the name does not say."
)
@click.option("--all", "everything", is_flag=True, help="Show every checkpoint of long runs.")
@inert_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    directory: str,
    metric: str | None,
    mode: Literal["min", "max"] | None,
    everything: bool,
    inert: tuple[str, ...],
    as_json: bool,
) -> None:
    """List the checkpoints in a directory, with run, epoch, step, metrics, age and size; newest and best are marked.

    Sorted by run, generation, step and epoch as stored in the files, never by names or file times. Unusable files are
    listed separately: incomplete (cut off, or a temporary file that was never published), damaged, unreadable. Only
    structure and index of each file are read; `ckptfmt verify` checks the data as well. *.pth and *.pt files and the
    checkpoint-N directories of Hugging Face are listed too; `latest` does not choose among the latter. Other
    subdirectories are not searched.

    Exit code: 0 listed, 1 nothing to list, 3 DIR cannot be read.
    """
    report = list_directory(directory, metric=metric, mode=mode, inert=inert)
    if as_json:
        write_json(report.to_json())
    elif report.entries:
        write_lines(list_lines(report, Terminal.of(sys.stdout), datetime.now(UTC), everything=everything))
    if not report.entries:
        say(f"{directory}: no checkpoints in this directory")
        ctx.exit(1)
