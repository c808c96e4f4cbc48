"""The process that holds a lease, and what it is to this one.

Whether a holder lives is decided by the first of these that knows:

1. On the machine of the holder, the system is asked: for the lock of its lease if that is a file, or for the process.
2. On another machine it may live all the same. The lease is watched for a while: if it changes, the holder lives.
   Clocks are not compared, and a holder that only seems to be dead loses nothing but the run.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ckptfmt._core.storage.leases.hold import BEAT_SECONDS
from ckptfmt._core.storage.leases.lease import Holder

__all__ = ["WATCH_SECONDS", "changes", "is_orphan", "is_running", "may_live_elsewhere", "this_process"]

T = TypeVar("T")

WATCH_SECONDS = 3.5 * BEAT_SECONDS
"""How long a lease of another machine is watched."""

_LOOK_SECONDS = 0.5
# Of these, the first one that is set names the job. A restart of the same job has the same.
_JOBS = {
    "SLURM_JOB_ID": "slurm",
    "PBS_JOBID": "pbs",
    "LSB_JOBID": "lsf",
    "AWS_BATCH_JOB_ID": "aws-batch",
    "TORCHELASTIC_RUN_ID": "torchrun",
}
_TORCHRUN = "TORCHELASTIC_RUN_ID"
_NO_NAME = "none"  # what torchrun calls a job without --rdzv-id
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_process(environment: Mapping[str, str] = os.environ) -> Holder:
    """Return this process as the holder of a lease."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=_machine(),
        process=_process(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        job=_job(environment),
        launcher=os.getppid() if _TORCHRUN in environment else None,
    )


def is_running(holder: Holder) -> bool | None:
    """Return whether the process of a holder is running; None if the system of this machine cannot tell."""
    if may_live_elsewhere(holder) or not _is_near(holder):
        return None
    return _process(holder.pid) == holder.process


def changes(look: Callable[[], T | None], seen: T | None, *, watch_seconds: float) -> bool:
    """Watch a lease, and return whether it changes, which shows that its holder is alive, or that it has a new one.

    Args:
        look: Returns what changes; None once the lease is gone.
        seen: What was seen before.
        watch_seconds: How long to watch.
    """
    latest = time.monotonic() + watch_seconds
    while seen is not None and time.monotonic() < latest:
        time.sleep(min(_LOOK_SECONDS, watch_seconds))
        if look() != seen:
            return True
    return False


def may_live_elsewhere(holder: Holder) -> bool:
    """Say whether a holder is on a machine that cannot be asked whether it lives."""
    return holder.machine != _machine()


def is_orphan(holder: Holder) -> bool:
    """Say whether a holder is known to have lost the launcher that watched over it: it works, but for nobody."""
    if holder.launcher is None or holder.machine != _machine() or not _is_near(holder):
        return False
    found = _stat(holder.pid)
    return found is not None and _process(holder.pid) == holder.process and int(found[1]) != holder.launcher


def _job(environment: Mapping[str, str]) -> str | None:
    for variable, kind in _JOBS.items():
        name = environment.get(variable, "")
        if name and (variable, name) != (_TORCHRUN, _NO_NAME):
            return f"{kind} {name}"
    return None


def _machine() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        return socket.gethostname()


def _process(pid: int) -> str:
    """Return what tells a process from later ones of its number: its namespace, and when it began."""
    found = _stat(pid)
    if found is None or found[0] in "ZX":  # what is left of one that has ended
        return ""
    return f"{_namespace()} {found[19]}"


def _is_near(holder: Holder) -> bool:
    """Say whether the system tells of the processes among which a holder has its number."""
    return bool(holder.process) and holder.process.split(" ")[0] == _namespace()


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _stat(pid: int) -> list[str] | None:
    """Return what Linux tells of a process behind its name: state, parent, and so on (proc_pid_stat(5), from 3 on)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
