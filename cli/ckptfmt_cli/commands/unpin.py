"""`ckptfmt unpin`."""

from __future__ import annotations

import click

from ckptfmt._core.ops.directory.pins import unpin
from ckptfmt_cli.pinning import tell

__all__ = ["command"]


@click.command(
    "unpin",
    short_help="Let checkpoints be pruned again.",
    epilog="""\b
Examples:
  ckptfmt unpin runs/digits/ckpt-00000120.ckptfmt
  ckptfmt unpin runs/digits/*.ckptfmt
""",
)
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Write what was done as JSON.")
def command(paths: tuple[str, ...], as_json: bool) -> None:
    """Take the pin from each FILE. Nothing else is changed: what is pruned next is for `ckptfmt prune` to say.

    Exit code: 0 none has a pin, 3 one could not be taken away, or there is no such file.
    """
    tell("unpin", map(unpin, paths), as_json=as_json)
