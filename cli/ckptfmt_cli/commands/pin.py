"""`ckptfmt pin`."""

from __future__ import annotations

import click

from ckptfmt._core.ops.directory.pins import pin
from ckptfmt_cli.pinning import tell

__all__ = ["command"]


@click.command(
    "pin",
    short_help="Keep checkpoints from being pruned.",
    epilog="""\b
Examples:
  ckptfmt pin runs/digits/ckpt-00000120.ckptfmt
  ckptfmt pin "$(ckptfmt latest --verify runs/digits)"
""",
)
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Write what was done as JSON.")
def command(paths: tuple[str, ...], as_json: bool) -> None:
    """Give each FILE a pin: neither `ckptfmt prune` nor the training removes it, whatever the policy.

    A pin is a file FILE.pin beside it. `ckptfmt unpin` takes it away.

    Exit code: 0 all have a pin, 3 one could not be given.
    """
    tell("pin", map(pin, paths), as_json=as_json)
