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
from ckptfmt_cli.inert import inert_option
from ckptfmt_cli.progress import on_screen, progress_line
from ckptfmt_cli.quantities import size_option, span_option
from ckptfmt_cli.render import say, write_json, write_lines
from ckptfmt_cli.stripping import names_in, strip
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import listed
from ckptfmt_cli.views.prune import plan_lines, result_lines

__all__ = ["command"]

_AT_LEAST_ONE = click.IntRange(min=1)


@click.command(
    "prune",
    short_help="Remove old checkpoints, with a reason for each.",
    epilog="""\b
Examples:
  ckptfmt prune --keep-last 3 --keep-best 1 --metric val_loss runs/digits
  ckptfmt prune --keep-every 10000 --keep-within 7d --dry-run runs/gpt
  ckptfmt prune --max-size 200GB --yes runs/gpt        # in a cron job
  ckptfmt prune --keep-last 1 --no-run old-pth-files
  ckptfmt prune last.ckptfmt --drop optimizer,rng -o small.ckptfmt
""",
)
@click.argument("path", metavar="DIR|FILE", type=click.Path())
@click.option("--keep-last", metavar="N", type=_AT_LEAST_ONE, help="Keep the N newest.")
@click.option("--keep-best", metavar="N", type=_AT_LEAST_ONE, help="Keep the N best by --metric.")
@click.option("--metric", metavar="NAME", help="What --keep-best goes by.")
@click.option("--mode", type=click.Choice(["min", "max"]), help="Which way it is better, if its name does not tell.")
@click.option("--keep-every", metavar="STEPS", type=_AT_LEAST_ONE, help="Keep the first of every so many steps.")
@click.option(
    "--keep-within",
    metavar="TIME",
    callback=span_option,
    help="Keep what is at most 7d, 12h, 30min older than the newest.",
)
@click.option(
    "--max-size", metavar="SIZE", callback=size_option, help="Keep no more than 200GB, 1.5TiB in all; the best go last."
)
@click.option("--run", "run_id", metavar="ID", help="The run; without it, the one that would be resumed.")
@click.option("--no-run", "runless", is_flag=True, help="Prune those that belong to no run, such as *.pth files.")
@click.option("--dry-run", is_flag=True, help="Show the plan and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait", metavar="TIME", callback=span_option, help="Wait so long for another prune that is at work here."
)
@click.option("--drop", metavar="NAMES", multiple=True, help="With FILE: the components to leave out, with commas.")
@click.option("--only", metavar="NAMES", multiple=True, help="With FILE: the components to keep, and no others.")
@click.option("--no-notes", is_flag=True, help="With FILE: leave out the user's notes as well.")
@click.option("-o", "--output", metavar="OUT", type=click.Path(), help="With FILE: the file to write.")
@click.option("--force", is_flag=True, help="With FILE: replace OUT if it is there.")
@inert_option
@click.option("--json", "as_json", is_flag=True, help="Write plan and outcome as JSON; needs --yes or --dry-run.")
@click.pass_context
def command(
    ctx: click.Context,
    path: str,
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
    drop: tuple[str, ...],
    only: tuple[str, ...],
    no_notes: bool,
    output: str | None,
    force: bool,
    inert: tuple[str, ...],
    as_json: bool,
) -> None:
    """Remove the checkpoints of a run that no rule keeps. What at least one rule asks for stays.

    The plan is shown first: what goes, what stays, and why. Then, on a terminal, you are asked; elsewhere --yes is
    needed. Before anything is removed, every byte of what stays is verified; what proves to be damaged does not count
    as kept, and is left alone.

    Never removed, whatever the rules: the newest sound checkpoint of the run, pinned ones (`ckptfmt pin`), those that
    a symbolic link in DIR leads to, damaged and unreadable files, and checkpoints of other runs or of none. It may run
    beside the training. Directories in DIR are not entered.

    With FILE and --drop or --only, nothing is removed: OUT is written, which is FILE without some of its components,
    for publishing. What stays is copied byte for byte and verified. OUT belongs to no run.

    Exit code: 0 done or nothing to do, 1 something could not be removed or you said no, 2 wrong usage, 3 it could not
    be done: DIR cannot be read, or another prune is at work there.
    """
    if drop or only:
        if output is None:
            raise click.UsageError("--drop and --only write a new file: name it with -o OUT.")
        wanted = {"drop": names_in(drop), "only": names_in(only)}
        strip(path, output, **wanted, notes=not no_notes, force=force, as_json=as_json)
        return
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
        raise click.UsageError("Say what to keep: --keep-last, --keep-best, --keep-every, --keep-within or --max-size.")
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json cannot ask: give --yes or --dry-run as well.")
    if Path(path).is_file():
        raise click.UsageError(f"{path} is a file: name a directory of checkpoints, or what to --drop of it.")
    planned = plan_prune(path, policy, inert=inert)
    if run_id is not None and not any(decision.concerned for decision in planned.plan.decisions):
        there = listed(run_ids(decision.file for decision in planned.plan.decisions), ", ") or "none"
        say(f"{path}: no checkpoint of run {run_id}; there are: {there}")
        ctx.exit(1)
    if not as_json:
        write_lines(plan_lines(planned, Terminal.of(sys.stdout), datetime.now(UTC)))
    if dry_run or not planned.plan.removed:
        if as_json:
            write_json(planned.to_json())
        return
    if not (yes or _agreed()):
        ctx.exit(1)
    result = _apply(planned, wait or timedelta())
    if as_json:
        write_json(result.to_json())
    else:
        write_lines(result_lines(result, Terminal.of(sys.stdout)))
    ctx.exit(1 if result.report.failed else 0)


def _best(
    count: int | None, metric: str | None, mode: Literal["min", "max"] | None
) -> tuple[str, Literal["min", "max"], int] | None:
    if metric is None:
        if count is not None:
            raise click.UsageError("--keep-best needs --metric NAME.")
        return None
    direction = mode or mode_of(metric)
    if direction is None:
        raise click.UsageError(f"Is a small or a large {metric} better? Give --mode min or --mode max.")
    return metric, direction, count or 1


def _agreed() -> bool:
    """Ask on the terminal."""
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise click.UsageError("Nothing was removed: there is no terminal to ask on; give --yes to agree beforehand.")
    sys.stdout.flush()
    with on_screen(sys.stderr):
        agreed = click.confirm("Verify what stays, and remove?", err=True)
    if agreed:
        return True
    say("Nothing was removed.")
    return False


def _apply(planned: PrunePlan, wait: timedelta) -> PruneResult:
    with progress_line() as line:
        return apply_prune(planned, wait_seconds=wait.total_seconds(), progress=line.update if line else None)
