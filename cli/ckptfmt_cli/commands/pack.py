"""`ckptfmt pack`."""

from __future__ import annotations

import click

from ckptfmt._core.format.index import CODECS
from ckptfmt._core.ops.members.pack import pack
from ckptfmt_cli.options import json_option, require_absent
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.views.members import pack_lines

__all__ = ["command"]


@click.command(
    "pack",
    short_help="Build a checkpoint from the files in a directory.",
    epilog="""\b
Examples:
  ckptfmt pack members -o again.ckptfmt
  ckptfmt pack --codec zstd members -o small.ckptfmt
""",
)
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("-o", "--output", metavar="FILE", required=True, type=click.Path(), help="The checkpoint to write.")
@click.option("--codec", type=click.Choice(CODECS), help="Codec of all members; by default the one noted for each.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(directory: str, output: str, codec: str | None, force: bool, as_json: bool) -> None:
    """Build a checkpoint from the files directly in DIR: those that `ckptfmt extract` wrote, edited or not, or others.

    A .safetensors and a .msgpack file with the same name form one component. Any other file becomes a member as it is.
    Extracted files that were not changed give back the same bytes. Files whose names begin with a dot are left out.

    Exit code: 0 done, 1 a file is not valid, 2 usage error, 3 DIR cannot be read or FILE cannot be written.
    """
    require_absent(output, force=force)
    with progress_line() as line:
        report = pack(directory, output, codec=codec, progress=line.update if line else None)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(pack_lines(report))
