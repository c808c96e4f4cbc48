"""Whether the holder of a lease lives, and what it is to this process.

In this order, the first that knows decides:

1. A holder keeps its lease locked for as long as it lives. If the lease is locked, it lives.
2. On the machine of the holder a lease that is not locked has no living holder. Where the file system has no locks,
   the system is asked for the process.
3. On another machine it may live all the same: on network file systems a lock may be seen by one machine only. The
   lease is watched for a while: if it is touched meanwhile, the holder lives. Clocks are not compared, and a holder
   that only seems to be dead loses nothing but the run (see `leases`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ckptfmt._core.storage.local.file_locks import Lock, try_lock
from ckptfmt._core.storage.local.leases.lease import BEAT_SECONDS, Holder, Lease, lease_path

__all__ = ["WATCH_SECONDS", "is_orphan", "may_live_elsewhere", "seems_alive", "this_process"]

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


def seems_alive(directory: str | os.PathLike[str], lease: Lease, *, watch_seconds: float = WATCH_SECONDS) -> bool:
    """Say whether the holder of a lease lives, as far as can be told.

    Args:
        directory: Where the lease is.
        lease: The lease, as it was read.
        watch_seconds: How long to watch a lease of another machine.

    Raises:
        OSError: The lease cannot be looked at.
    """
    if lease.holder is None:
        return False
    path = lease_path(directory, lease.run_id)
    lock, touched = _look(path)
    if lock is Lock.HELD_BY_ANOTHER:
        return True
    if lease.holder.machine == _machine():
        if lock is Lock.TAKEN:
            return False
        if _is_near(lease.holder):
            return _process(lease.holder.pid) == lease.holder.process
    latest = time.monotonic() + watch_seconds
    while touched is not None and time.monotonic() < latest:
        time.sleep(min(_LOOK_SECONDS, watch_seconds))
        if _look(path)[1] != touched:
            return True  # or it was replaced, which its new holder did
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


def _look(path: Path) -> tuple[Lock, int | None]:
    """Return whether a file is locked and when it was touched; None if it is gone."""
    try:
        # To open it anew is what makes a network file system ask its server.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return Lock.TAKEN, None
    try:
        return try_lock(descriptor, shared=True), os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


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
