"""Processes of a rehearsal: the command of the user, with a plan in its environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ckptfmt._core.training.rehearsal.journal import Entry, entries_of
from ckptfmt._core.training.rehearsal.plan import VARIABLE, RehearsalPlan
from ckptfmt.errors import CkptfmtError, UsageError

__all__ = ["rehearse"]

_TAIL_LINES = 15


def rehearse(
    command: Sequence[str], plan: RehearsalPlan, workplace: Path, *, timeout_seconds: float
) -> tuple[Entry, ...]:
    """Run the command with a plan, and return what it recorded.

    Args:
        command: The command and its arguments.
        plan: The plan. If it kills the process, the command has to end by that.
        workplace: Existing directory for the plan and the output of the command.
        timeout_seconds: Limit for the command.

    Raises:
        CkptfmtError: The command ended otherwise than planned, took too long, or no `Checkpointer` saw the plan. The
            message ends with the last lines of its output.
        UsageError: The command cannot be started.
    """
    path = workplace / "plan.json"
    plan.write(path)
    log = workplace / "output.txt"
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(  # noqa: S603 - to run the user's command is the purpose
                command,
                env={**os.environ, VARIABLE: str(path)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise UsageError(f"{command[0]}: cannot be started: {error.strerror}") from None
        try:
            code = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise _failure(
                f"took longer than {timeout_seconds:g} seconds; raise --timeout, or lower --steps", log
            ) from None
        finally:
            _end_group(process.pid)
            process.wait()
    entries = tuple(entries_of(Path(plan.journal)))
    is_killed = plan.kill_step is not None or plan.kill_epoch is not None
    if not entries:
        why = "no Checkpointer of ckptfmt.torch trained a step in it"
        raise _failure(f"{why} (exit code {code}); the command has to run the loop in its own process", log)
    if code == -signal.SIGKILL and is_killed:
        return entries
    if code != 0:
        raise _failure(f"ended with exit code {code}", log)
    return entries


def _end_group(group: int) -> None:
    """End what the command has started and left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _failure(why: str, log: Path) -> CkptfmtError:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return CkptfmtError("\n".join((f"the command {why}", *(f"  {line}" for line in lines))))
