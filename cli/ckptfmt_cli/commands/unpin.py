"""`ckptfmt unpin`."""

from __future__ import annotations

import click

from ckptfmt._core.ops.directory.pins import unpin
from ckptfmt_cli.options import json_option
from ckptfmt_cli.pinning import write_changes

__all__ = ["command"]


@click.command(
    "unpin",
    short_help="Allow checkpoints to be pruned again.",
    epilog="""\b
Examples:
  ckptfmt unpin runs/digits/ckpt-00000120.ckptfmt
  ckptfmt unpin runs/digits/*.ckptfmt
""",
)
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@json_option
def command(paths: tuple[str, ...], as_json: bool) -> None:
    """Remove the pin from each FILE, so that `ckptfmt prune` and training may remove the checkpoint again.

    Exit code: 0 none is pinned, 3 a pin could not be removed, or a FILE does not exist.
    """
    write_changes("unpin", map(unpin, paths), as_json=as_json)
