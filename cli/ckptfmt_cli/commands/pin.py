"""`ckptfmt pin`."""

from __future__ import annotations

import click

from ckptfmt._core.ops.directory.pins import pin
from ckptfmt_cli.options import json_option
from ckptfmt_cli.pinning import write_changes

__all__ = ["command"]


@click.command(
    "pin",
    short_help="Protect checkpoints from being pruned.",
    epilog="""\b
Examples:
  ckptfmt pin runs/digits/ckpt-00000120.ckptfmt
  ckptfmt pin "$(ckptfmt latest --verify runs/digits)"
""",
)
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@json_option
def command(paths: tuple[str, ...], as_json: bool) -> None:
    """Pin each FILE, so that neither `ckptfmt prune` nor training removes it, whatever the rules.

    A pin is an empty file, FILE.pin, next to the checkpoint. `ckptfmt unpin` removes it.

    Exit code: 0 all are pinned, 3 a FILE could not be pinned.
    """
    write_changes("pin", map(pin, paths), as_json=as_json)
