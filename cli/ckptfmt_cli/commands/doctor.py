"""`ckptfmt doctor`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from ckptfmt._core.ops.doctor.diagnosis import Options, diagnose
from ckptfmt._core.ops.doctor.report import DoctorReport
from ckptfmt_cli.options import json_option
from ckptfmt_cli.render import say, write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.doctor import doctor_lines

__all__ = ["command"]


@click.command(
    "doctor",
    short_help="Check that a training program resumes exactly.",
    context_settings={"ignore_unknown_options": True},
    epilog="""\b
Examples:
  ckptfmt doctor -- python train.py --train_url runs/digits
  ckptfmt doctor --steps 40 --epoch-batches 10 -- python train.py
""",
)
@click.option("--steps", metavar="N", type=click.IntRange(3), default=12, show_default=True, help="Steps of each run.")
@click.option(
    "--epoch-batches",
    metavar="N",
    type=click.IntRange(2),
    default=4,
    show_default=True,
    help="Batches of each epoch; the rest of the epoch is left out.",
)
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(1), default=600, show_default=True, help="Limit for each run."
)
@json_option
@click.argument("program", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def command(
    ctx: click.Context, steps: int, epoch_batches: int, timeout: float, as_json: bool, program: tuple[str, ...]
) -> None:
    """Run a training program for a few steps, kill it, resume it, and compare it with an uninterrupted run.

    COMMAND is the command that trains, with its arguments; its loop uses a Checkpointer. It runs about eight times.
    Its checkpoints go to a scratch directory, so the run in its own directory is not touched. Everything else that it
    writes or uploads, such as logs, it writes each time.

    The report names what is not restored: a module or optimizer that is no component, a generator, a variable.

    Exit code: 0 every resumed run was exact, 1 one was not, 2 usage error, 3 the program failed, or two uninterrupted
    runs of it already differ: seed it first.
    """
    say("logs and uploads of the program are not redirected; it can see CKPTFMT_DOCTOR in its environment")
    with tempfile.TemporaryDirectory(prefix="ckptfmt-doctor-") as workplace:
        report = diagnose(program, Path(workplace), Options(steps, epoch_batches, timeout), say)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(doctor_lines(report, Terminal.of(sys.stdout)))
    ctx.exit(_exit_code(report))


def _exit_code(report: DoctorReport) -> int:
    if not report.exact:
        return 1
    return 0 if report.deterministic else 3
