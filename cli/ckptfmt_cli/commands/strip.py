"""`ckptfmt strip`."""

from __future__ import annotations

from itertools import chain

import click

from ckptfmt._core.ops.members.strip import strip_file
from ckptfmt_cli.options import json_option, require_absent
from ckptfmt_cli.param_types import NAMES
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.views.members import strip_lines

__all__ = ["command"]


@click.command(
    "strip",
    short_help="Write a copy of a checkpoint without some components.",
    epilog="""\b
Examples:
  ckptfmt strip last.ckptfmt -o weights.ckptfmt --keep net
  ckptfmt strip last.ckptfmt -o public.ckptfmt --drop optimizer,rng --no-notes
""",
)
@click.argument("path", metavar="FILE", type=click.Path())
@click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(), help="The checkpoint to write.")
@click.option(
    "--drop", metavar="NAMES", type=NAMES, multiple=True, help="Components to leave out; separate by commas or repeat."
)
@click.option(
    "--keep", metavar="NAMES", type=NAMES, multiple=True, help="Components to keep, leaving out all others; likewise."
)
@click.option("--no-notes", is_flag=True, help="Leave out the user's notes as well.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@json_option
def command(
    path: str,
    output: str,
    drop: tuple[tuple[str, ...], ...],
    keep: tuple[tuple[str, ...], ...],
    no_notes: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write a copy of FILE without some of its components, for example to publish it.

    What stays is copied byte for byte, and verified on the way. OUT belongs to no run, so training never resumes from
    it; it records FILE as its parent. A component may also be a member that belongs to none, such as dataset.arrow.

    OUT appears completely or not at all. FILE is not changed.

    Exit code: 0 written, 1 FILE is damaged or has no such component, 2 usage error, 3 FILE cannot be read or OUT
    cannot be written.
    """
    if drop and keep:
        raise click.UsageError("--drop and --keep exclude each other; give one of them")
    if not (drop or keep or no_notes):
        raise click.UsageError("nothing to leave out; name components with --drop or --keep")
    require_absent(output, force=force)
    with progress_line() as line:
        report = strip_file(
            path,
            output,
            drop=list(chain(*drop)),
            keep=list(chain(*keep)),
            notes=not no_notes,
            progress=line.update if line else None,
        )
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(strip_lines(report))
