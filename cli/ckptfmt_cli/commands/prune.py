"""`ckptfmt prune`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import click

from ckptfmt._core.ops.directory.prune import PrunePlan, PruneResult, apply_prune, plan_prune
from ckptfmt._core.runs.metric_names import mode_of
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt._core.runs.scan import run_ids
from ckptfmt_cli.options import inert_option
from ckptfmt_cli.param_types import DURATION, SIZE
from ckptfmt_cli.progress import on_screen, progress_line
from ckptfmt_cli.render import say, write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import count, listed
from ckptfmt_cli.views.prune import plan_lines, result_lines

__all__ = ["command"]

_AT_LEAST_ONE = click.IntRange(min=1)


@click.command(
    "prune",
    short_help="Remove checkpoints that no rule keeps.",
    epilog="""\b
Examples:
  ckptfmt prune --keep-last 3 --keep-best 1 --metric val_loss runs/digits
  ckptfmt prune --keep-every 10000 --keep-within 7d --dry-run runs/gpt
  ckptfmt prune --max-size 200GB --yes runs/gpt        # in a cron job
  ckptfmt prune --keep-last 1 --no-run old-pth-files
""",
)
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("--keep-last", metavar="N", type=_AT_LEAST_ONE, help="Keep the N newest checkpoints.")
@click.option("--keep-best", metavar="N", type=_AT_LEAST_ONE, help="Keep the N best checkpoints by --metric.")
@click.option("--metric", metavar="NAME", help="Metric for --keep-best; without it, keep the best one.")
@click.option(
    "--mode", type=click.Choice(["min", "max"]), help="Whether lower or higher is better, if the name does not say."
)
@click.option(
    "--keep-every", metavar="STEPS", type=_AT_LEAST_ONE, help="Keep the first checkpoint of every STEPS steps."
)
@click.option(
    "--keep-within",
    metavar="TIME",
    type=DURATION,
    help="Keep checkpoints at most TIME (7d, 12h, 30min) older than the newest.",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    type=SIZE,
    help="Keep at most SIZE (200GB, 1.5TiB) in total, whatever the other rules; the best are removed last.",
)
@click.option("--run", "run_id", metavar="ID", help="The run; by default the one that training would resume.")
@click.option("--no-run", "runless", is_flag=True, help="Prune checkpoints that belong to no run, such as *.pth files.")
@click.option("--dry-run", is_flag=True, help="Show the plan and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--wait", metavar="TIME", type=DURATION, help="Wait up to TIME for another prune in this directory to finish."
)
@inert_option
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON; needs --yes or --dry-run.")
@click.pass_context
def command(
    ctx: click.Context,
    directory: str,
    keep_last: int | None,
    keep_best: int | None,
    metric: str | None,
    mode: Literal["min", "max"] | None,
    keep_every: int | None,
    keep_within: timedelta | None,
    max_size: int | None,
    run_id: str | None,
    runless: bool,
    dry_run: bool,
    yes: bool,
    wait: timedelta | None,
    inert: tuple[str, ...],
    as_json: bool,
) -> None:
    """Remove the checkpoints of a run that no rule keeps. A checkpoint stays if at least one rule keeps it.

    Shows the plan first: what to remove, what to keep, and why. Then asks for confirmation; --yes skips the question,
    and is required where there is no terminal. Before it removes anything, it verifies every byte of what stays. A
    checkpoint that turns out to be damaged does not count as kept, and is left alone.

    Never removed, whatever the rules: the newest sound checkpoint of the run, pinned checkpoints (`ckptfmt pin`),
    targets of symbolic links in DIR, damaged and unreadable files, and checkpoints of other runs or of none. DIR may
    be in use by training. Subdirectories are not searched.

    To remove components from a checkpoint, use `ckptfmt strip`.

    Exit code: 0 done or nothing to do, 1 a checkpoint could not be removed or you declined, 2 usage error, 3 DIR
    cannot be read, or another prune is running in it.
    """
    if run_id is not None and runless:
        raise click.UsageError("--run and --no-run exclude each other; give one of them")
    policy = RetentionPolicy(
        keep_last=keep_last,
        keep_best=_best(keep_best, metric, mode),
        keep_every_steps=keep_every,
        keep_within=keep_within,
        max_bytes=max_size,
        run_id=run_id,
        runless=runless,
    )
    if policy.keeps_everything:
        rules = "--keep-last, --keep-best, --keep-every, --keep-within or --max-size"
        raise click.UsageError(f"no rule says what to keep; add {rules}")
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json cannot ask for confirmation; add --yes or --dry-run")
    if Path(directory).is_file():
        raise click.UsageError(f"{directory} is a file; name the directory, or remove components with `ckptfmt strip`")
    planned = plan_prune(directory, policy, inert=inert)
    if run_id is not None and not any(decision.concerned for decision in planned.plan.decisions):
        there = listed(run_ids(decision.file for decision in planned.plan.decisions), ", ") or "none"
        say(f"{directory}: no checkpoint of run {run_id}; runs in this directory: {there}")
        ctx.exit(1)
    if not as_json:
        write_lines(plan_lines(planned, Terminal.of(sys.stdout), datetime.now(UTC)))
    if dry_run or not planned.plan.removed:
        if as_json:
            write_json(planned.to_json())
        return
    if not (yes or _confirm(planned)):
        ctx.exit(1)
    result = _apply(planned, wait or timedelta())
    if as_json:
        write_json(result.to_json())
    else:
        write_lines(result_lines(result, Terminal.of(sys.stdout)))
    ctx.exit(1 if result.report.failed else 0)


def _best(
    number: int | None, metric: str | None, mode: Literal["min", "max"] | None
) -> tuple[str, Literal["min", "max"], int] | None:
    if metric is None:
        if number is not None:
            raise click.UsageError("--keep-best needs a metric; add --metric NAME")
        if mode is not None:
            raise click.UsageError("--mode needs a metric; add --metric NAME")
        return None
    direction = mode or mode_of(metric)
    if direction is None:
        raise click.UsageError(
            f"the name {metric!r} does not say which values are better; add --mode min or --mode max"
        )
    return metric, direction, number or 1


def _confirm(planned: PrunePlan) -> bool:
    """Ask on the terminal."""
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask for confirmation on; add --yes to remove without asking")
    sys.stdout.flush()
    with on_screen(sys.stderr):
        question = f"Verify what stays, then remove {count(len(planned.plan.removed), 'checkpoint')}?"
        confirmed = click.confirm(question, err=True)
    if not confirmed:
        say("nothing was removed")
    return confirmed


def _apply(planned: PrunePlan, wait: timedelta) -> PruneResult:
    with progress_line() as line:
        return apply_prune(planned, wait_seconds=wait.total_seconds(), progress=line.update if line else None)
