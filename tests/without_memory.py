"""Threads started in a process that has no memory left: `python -m tests.without_memory WHAT ROOM`.

Prints as JSON what came of it, and how many threads ended before they began.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.storage.leases.lease import Lease
from ckptfmt._core.storage.local.file_leases import lease_path, publish_lease
from ckptfmt._core.system.threads import Thread
from ckptfmt._core.system.workers import Workers, in_order
from ckptfmt._core.training.saving.background_saver import Saver, Written

_STACK = 1 << 18
_LARGEST, _SMALLEST = 1 << 16, 32
_SPARE = [*range(48, 513, 16)] * 400 + [2000] * 40
"""Sizes of blocks that stay free: enough for objects, too little for the frames of a thread."""


@contextmanager
def no_memory(room: int) -> Iterator[None]:
    """Let the process use all of its memory but for some small blocks, and have only so many more bytes.

    The system keeps the stack of a thread that has ended: with that, one can be started that finds no memory.
    """
    blocks = [bytes(size) for size in sorted(_SPARE)]
    spare, used = blocks[::2], blocks[1::2]  # every other one, so that no larger block becomes free
    del blocks
    limit = _size()
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    size = _LARGEST
    while size >= _SMALLEST:
        try:
            while True:
                used.append(bytes(size))
        except MemoryError:
            size //= 2
    del spare
    resource.setrlimit(resource.RLIMIT_AS, (limit + room, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        del used
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def work(room: int) -> bool:
    """Return whether each job was done once and gave its result."""
    done = [0] * 50
    expected = [*range(50)]

    def job(number: int) -> int:
        done[number] += 1
        return number

    with no_memory(room):
        results = list(in_order(job, expected, 3))
    return results == expected and done == [1] * 50


def save(room: int) -> bool:
    """Return whether a save in the background was done once and its result is there."""
    written = Written(SaveReport("a.ckptfmt", "00" * 32, 100, ("net",)))
    calls = []

    def write() -> Written:
        calls.append(1)
        return written

    saver = Saver()
    with no_memory(room):
        saver.start(7, write)
        finished = saver.take(wait=True)
    return finished is not None and finished.written is written and calls == [1] and not saver.busy


def hold(room: int) -> bool:
    """Return whether a lease is touched, now or by a thread, and by a thread as soon as there can be one."""
    with tempfile.TemporaryDirectory() as directory:
        held = publish_lease(directory, Lease("r", 1, "ab" * 16, None))
        path = lease_path(directory, "r")
        os.utime(path, (0, 0))
        with no_memory(room):
            held.keep_alive(lambda: None)
        touched = path.stat().st_mtime > 0
        beating = _is_beating()
        held.keep_alive(lambda: None)
        beating_later = _is_beating()
        held.close()
    return touched is not beating and beating_later


def _is_beating() -> bool:
    return any(thread.name == "ckptfmt-lease" for thread in threading.enumerate())


ACTS: dict[str, Callable[[int], bool]] = {"work": work, "save": save, "hold": hold}


def main() -> None:
    what, room = sys.argv[1:]
    refused = []
    start = Thread.start

    def count_refusals(thread: Thread) -> None:
        try:
            start(thread)
        except MemoryError:
            refused.append(thread.name)
            raise

    Thread.start = count_refusals  # type: ignore[assignment, method-assign]  # does the same
    threading.stack_size(_STACK)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Python tells of each such thread
    with Workers(3) as workers:
        list(workers.in_order([lambda: None] * 10))
    right = ACTS[what](int(room))
    json.dump({"right": right, "refused": len(refused)}, sys.stdout)


if __name__ == "__main__":
    main()
