"""`ckptfmt plot`."""

from __future__ import annotations

import click

from ckptfmt._core.ops.directory.curves import read_curves
from ckptfmt_cli.options import inert_option
from ckptfmt_cli.pages.plot import plot_page
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import say, write_file, write_json
from ckptfmt_cli.views.plot import plot_svg

__all__ = ["command"]

_FORMS = (".svg", ".html")


@click.command(
    "plot",
    short_help="Plot metrics and layer norms over training.",
    epilog="""\b
Examples:
  ckptfmt plot runs/digits -o digits.svg
  ckptfmt plot --no-norms runs/gpt -o gpt.html
  ckptfmt plot --json runs/digits | jq '.runs[].metrics'
""",
)
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("-o", "--output", metavar="OUT", type=click.Path(), help="The plot to write: OUT.svg or OUT.html.")
@click.option("--run", "run_id", metavar="ID", help="Only this run instead of all runs in DIR.")
@click.option(
    "--norms/--no-norms",
    default=True,
    show_default=True,
    help="Read the weights of every checkpoint and plot layer norms.",
)
@inert_option
@click.option("--json", "as_json", is_flag=True, help="Write the numbers as JSON instead of a plot.")
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
    """Plot each metric over the checkpoints in DIR, and the norm of the weights of each layer.

    All runs share one chart for each metric. A layer is a module, at the greatest depth that leaves few enough lines
    to tell apart. Norms require reading the weights of every checkpoint; --no-norms plots metrics only. The plot is
    one self-contained file that follows light and dark mode.

    Exit code: 0 plotted, 1 nothing to plot, 2 usage error, 3 DIR cannot be read.
    """
    if as_json and output is not None:
        raise click.UsageError("--json writes no plot; remove --json or -o")
    if not as_json and (output is None or not output.endswith(_FORMS)):
        raise click.UsageError("no plot to write; name it with -o OUT.svg or -o OUT.html")
    with progress_line() as line:
        progress = line.update if line else None
        report = read_curves(directory, run_id=run_id, norms=norms, inert=inert, progress=progress)
    for path, why in report.skipped:
        say(f"{path}: skipped: {why}")
    if as_json:
        write_json(report.to_json())
    elif report.empty:
        say(f"{directory}: nothing to plot; no checkpoint in this directory has a metric and a step or epoch")
    elif output is not None:
        write_file(output, plot_svg(report) if output.endswith(".svg") else plot_page(report))
    ctx.exit(1 if report.empty else 0)
