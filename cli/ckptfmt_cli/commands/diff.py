"""`ckptfmt diff`."""

from __future__ import annotations

import sys

import click

from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt_cli.inert import inert_option
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.diff import diff_lines

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
@click.option("--values", is_flag=True, help="Read the tensors that differ, and say how far they are apart.")
@click.option(
    "--tolerance",
    metavar="X",
    type=click.FloatRange(min=0),
    help="Absolute differences up to X are none; implies --values.",
)
@click.option("--all", "everything", is_flag=True, help="Show every difference, not only the first of each kind.")
@inert_option
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
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
    """Show what differs between two files, and whether a training would resume identically from both.

    Facts, components, hyper-parameters, and tensors that were added, removed, renamed, reshaped, retyped or changed.
    Equal tensors are known by their digests: of two checkpoints, no tensor is read unless --values asks for it. A
    tensor of another name with equal data was renamed. A and B may be of different formats.

    Exit code: 0 the content is the same, 1 it differs, 3 a file cannot be read. Facts such as step, metrics and time
    are shown and do not count.
    """
    with progress_line() as line:
        progress = line.update if line else None
        report = diff_files(before, after, values=values, tolerance=tolerance, inert=inert, progress=progress)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(diff_lines(report, Terminal.of(sys.stdout), everything=everything))
    ctx.exit(0 if report.same else 1)
