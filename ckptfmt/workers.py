"""How many threads work on one checkpoint, and what if there are none to be had."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["CORES", "cores", "submit"]

T = TypeVar("T")

_MOST = 8  # from here on, disks and memory are what is waited for
_RANKS = "LOCAL_WORLD_SIZE"  # processes of the job on this machine; torchrun sets it


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many cores this process may use: its share of those that it may run on, 8 at most."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = environment.get(_RANKS, "")
    shared_by = int(ranks) if ranks.isascii() and ranks.isdigit() and len(ranks) < 10 else 1
    return max(1, min(_MOST, present // max(1, shared_by)))


CORES = cores()
"""The same, at the start of the process."""


def submit(pool: ThreadPoolExecutor, job: Callable[[], T]) -> Future[T]:
    """Let a thread of the pool do a job; do it here if there is none, be it that the interpreter is ending.

    What has begun is to be finished all the same.
    """
    try:
        return pool.submit(job)
    except RuntimeError:
        done: Future[T] = Future()
        done.set_result(job())
        return done
