"""How many threads work on one checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["CORES", "cores"]

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
