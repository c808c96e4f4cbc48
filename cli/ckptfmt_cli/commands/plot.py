"""`ckptfmt plot`."""

from __future__ import annotations

import click

from ckptfmt._core.ops.directory.curves import read_courses
from ckptfmt_cli.inert import inert_option
from ckptfmt_cli.pages.plot import plot_page
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import say, write_file, write_json
from ckptfmt_cli.views.plot import plot_svg

__all__ = ["command"]

_FORMS = (".svg", ".html")


@click.command(
    "plot",
    short_help="Draw metrics and norms of layers over a training.",
    epilog="""\b
Examples:
  ckptfmt plot runs/digits -o digits.svg
  ckptfmt plot --no-norms runs/gpt -o gpt.html
  ckptfmt plot --json runs/digits | jq '.runs[].metrics'
""",
)
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("-o", "--output", metavar="OUT", type=click.Path(), help="The picture to write: OUT.svg or OUT.html.")
@click.option("--run", "run_id", metavar="ID", help="Only this run, instead of all in DIR.")
@click.option("--norms/--no-norms", default=True, help="Read the weights of every checkpoint for the norms of layers.")
@inert_option
@click.option("--json", "as_json", is_flag=True, help="Write the numbers as JSON instead of a picture.")
@click.pass_context
def command(
    ctx: click.Context,
    directory: str,
    output: str | None,
    run_id: str | None,
    norms: bool,
    inert: tuple[str, ...],
    as_json: bool,
) -> None:
    """Draw how each metric went over the checkpoints in DIR, and the norm of each layer of the weights.

    Several runs are drawn side by side. Layers are modules, as deep as there are few enough of them to tell apart.
    Norms need the weights of every checkpoint, which takes as long as reading them; --no-norms draws metrics alone.
    The picture needs nothing else to be shown, and follows light and dark.

    Exit code: 0 drawn, 1 there is nothing to draw, 2 wrong usage, 3 DIR cannot be read.
    """
    if not as_json and (output is None or not output.endswith(_FORMS)):
        raise click.UsageError("Name the picture to write: -o OUT.svg or -o OUT.html.")
    with progress_line() as line:
        progress = line.update if line else None
        report = read_courses(directory, run_id=run_id, norms=norms, inert=inert, progress=progress)
    for path, why in report.skipped:
        say(f"{path}: left out: {why}")
    if as_json:
        write_json(report.to_json())
    elif report.empty:
        say(f"{directory}: no checkpoint in this directory says a metric and where in its training it was")
    elif output is not None:
        write_file(output, plot_svg(report) if output.endswith(".svg") else plot_page(report))
    ctx.exit(1 if report.empty else 0)
