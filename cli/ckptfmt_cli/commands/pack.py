"""`ckptfmt pack`."""

from __future__ import annotations

from pathlib import Path

import click

from ckptfmt._core.format.index import CODECS
from ckptfmt._core.ops.members.pack import pack
from ckptfmt._escaping import escape
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.text import count, size

__all__ = ["command"]


@click.command(
    "pack",
    short_help="Make a checkpoint of the files in a directory.",
    epilog="""\b
Examples:
  ckptfmt pack members -o again.ckptfmt
  ckptfmt pack --codec zstd members -o small.ckptfmt
""",
)
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("-o", "--output", metavar="FILE", required=True, type=click.Path(), help="The checkpoint to write.")
@click.option("--codec", type=click.Choice(CODECS), help="Store all members so, instead of as they were.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Write what was done as JSON.")
def command(directory: str, output: str, codec: str | None, force: bool, as_json: bool) -> None:
    """Make a checkpoint of the files directly in DIR, as `ckptfmt extract` wrote them, or edited, or others.

    A .safetensors and a .msgpack file of one name are one component. Any other file becomes a member as it is. What
    was extracted and not changed becomes the same bytes again. Files whose names begin with a dot are left out.

    Exit code: 0 done, 1 a file is not valid, 2 wrong usage, 3 DIR cannot be read or FILE not be written.
    """
    if Path(output).exists() and not force:
        raise click.UsageError(f"{output} is there already: give another name, or --force to replace it.")
    with progress_line() as line:
        report = pack(directory, output, codec=codec, progress=line.update if line else None)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines([f"{escape(report.path)}: {count(len(report.members), 'member')}, {size(report.file_bytes)}"])
