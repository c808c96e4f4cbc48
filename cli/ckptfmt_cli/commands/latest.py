"""`ckptfmt latest`."""

from __future__ import annotations

import click

from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt_cli.options import inert_option, json_option
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import say, write_json, write_path

__all__ = ["command"]


@click.command(
    "latest",
    short_help="Print the checkpoint that training would resume from.",
    epilog="""\b
Examples:
  ckptfmt latest runs/digits
  ckptfmt latest --verify --run digits-7f3a runs/digits
  cp "$(ckptfmt latest --verify runs/digits)" /backup/
""",
)
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path())
@click.option("--run", "run_id", metavar="ID", help="The run; by default the one that training would resume.")
@click.option("--verify", is_flag=True, help="Read every byte and print the newest checkpoint that is sound.")
@inert_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, directory: str, run_id: str | None, verify: bool, inert: tuple[str, ...], as_json: bool
) -> None:
    """Print the path of the checkpoint that training would resume from, and nothing else.

    Made for scripts: a pipe or a file receives the exact bytes of the path. A terminal shows control characters
    escaped.

    Generation, step and epoch stored in the files decide which one is the newest, never names or file times. Without
    --verify, only the index of each file is read. Skipped files are reported on stderr.

    A damaged checkpoint is skipped; one that may be sound never is. If a file that is refused, needs a newer ckptfmt
    or cannot be read may be the newest, nothing is printed.

    Exit code: 0 printed, 1 no usable checkpoint, 3 DIR, or a file that may be the newest, cannot be read.
    """
    with progress_line() as line:
        progress = line.update if line else None
        report = find_latest(directory, run_id=run_id, verify=verify, inert=inert, progress=progress)
    if as_json:
        write_json(report.to_json())
    else:
        for item in report.skipped:
            say(f"{item.path}: skipped: {item.reason}")
        if report.file is not None:
            write_path(report.file.path)
    for item in report.undecided:
        say(f"{item.path}: may be the newest but cannot be judged; make it readable or move it away")
    if report.undecided:
        ctx.exit(3)
    if report.file is not None and not report.resumable:
        say(f"{report.file.path}: belongs to no run and records no epoch; training does not resume from it")
    if report.file is None:
        of_run = "" if report.run_id is None else f" of run {report.run_id}"
        say(f"{directory}: no usable checkpoint{of_run} in this directory")
        ctx.exit(1)
