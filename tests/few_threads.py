"""A real limit of threads for this process, as a container or `ulimit -u` sets one.

`ulimit -u` (RLIMIT_NPROC) counts the threads of a user, and root has no limit. So the process first becomes a user of
its own: another one if it is root's, else the same one in a namespace of users of its own, where nobody else counts.

`python tests/few_threads.py ROOM MODULE ARGUMENT...` runs `python -m MODULE` under such a limit.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
import time
from pathlib import Path

__all__ = ["become_nobody", "leave_room_for", "require_no_more_than"]

_FIRST_USER = 1_000_000  # beyond those that real users have; one for each process
_CLONE_NEWUSER = 0x10000000
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAPABILITY_VERSION = 0x20080522
_DAC_OVERRIDE = 1  # to read and write any file


def become_nobody() -> None:
    """Become a user whose threads are all of this process. To be called before it has other threads: before imports."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        _succeed(libc.unshare(_CLONE_NEWUSER))
        return
    _succeed(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    user = _FIRST_USER + os.getpid()
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # It may still read and write the files of the test, which are root's. No other privilege is left.
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    effective = permitted = inheritable = 1 << _DAC_OVERRIDE
    data = (ctypes.c_uint32 * 6)(effective, permitted, inheritable, 0, 0, 0)
    _succeed(libc.capset(header, data))
    _succeed(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _DAC_OVERRIDE, 0, 0))  # programs that it runs, too


def leave_room_for(threads: int) -> None:
    """Let only so many more threads be started than there are now, and make sure that the limit is in force.

    Raises:
        AssertionError: More or fewer can be started.
    """
    limit = _settled() + threads
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    for _ in range(200):
        if require_no_more_than(threads) == threads:
            return
        time.sleep(0.02)  # those of the last time may still count
    raise AssertionError(f"fewer than {threads} threads can be started")


def require_no_more_than(threads: int) -> int:
    """Make sure that at most so many threads can be started; return how many.

    Raises:
        AssertionError: More can be started.
    """
    startable = _startable(threads + 3)
    if startable > threads:
        raise AssertionError(f"{startable} threads can be started, and the limit was to leave room for {threads}")
    return startable


def _settled() -> int:
    """Return how many threads there are when those that have ended are gone: they count until the system has time."""
    counts = [_count()]
    if counts == [1]:
        return 1
    while len(counts) < 50 or len(set(counts[-50:])) > 1:
        time.sleep(0.02)
        counts.append(_count())
    return counts[-1]


def _count() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _startable(most: int) -> int:
    end = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(most):
            thread = threading.Thread(target=end.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    finally:
        end.set()
        for thread in started:
            thread.join()
    return len(started)


def _succeed(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"this process cannot become a user of its own: {os.strerror(number)}")


if __name__ == "__main__":
    become_nobody()
    leave_room_for(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
