"""`ckptfmt diff`."""

from __future__ import annotations

import sys

import click

from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt_cli.options import inert_option, json_option
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.diff import SHOWN_CHANGES, diff_lines

__all__ = ["command"]


@click.command(
    "diff",
    short_help="Show what differs between two checkpoints.",
    epilog="""\b
Examples:
  ckptfmt diff ckpt-00000900.ckptfmt ckpt-00001000.ckptfmt
  ckptfmt diff --values --all before.ckptfmt after.ckptfmt
  ckptfmt diff --tolerance 1e-6 old.safetensors new.ckptfmt && echo close
  git config difftool.ckptfmt.cmd 'ckptfmt diff "$LOCAL" "$REMOTE"'
""",
)
@click.argument("before", metavar="A", type=click.Path())
@click.argument("after", metavar="B", type=click.Path())
@click.option("--values", is_flag=True, help="Read the tensors that differ and show how far apart they are.")
@click.option(
    "--tolerance",
    metavar="X",
    type=click.FloatRange(min=0),
    help="Ignore absolute differences up to X; implies --values.",
)
@click.option(
    "--all", "everything", is_flag=True, help=f"Show every difference, not only the first {SHOWN_CHANGES} of each kind."
)
@inert_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    before: str,
    after: str,
    values: bool,
    tolerance: float | None,
    everything: bool,
    inert: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what differs between two checkpoints, and whether training would resume identically from both.

    Compares facts, components, hyperparameters, and tensors that were added, removed, renamed, reshaped, retyped or
    changed. Digests show which tensors are equal: between two native checkpoints, no tensor is read unless --values
    asks for it. Equal data under another name counts as renamed. A and B may have different formats.

    Exit code: 0 same content, 1 different, 3 a file cannot be read. Facts such as step, metrics and creation time are
    shown but do not count as a difference.
    """
    ctx.with_resource(collector_paused())  # the command ends with most of what it makes
    with progress_line() as line:
        progress = line.update if line else None
        report = diff_files(before, after, values=values, tolerance=tolerance, inert=inert, progress=progress)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(diff_lines(report, Terminal.of(sys.stdout), everything=everything))
    ctx.exit(0 if report.same else 1)
