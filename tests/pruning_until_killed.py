"""Prune a directory, and die by SIGKILL just before the n-th removal of a checkpoint.

Usage: pruning_until_killed.py DIRECTORY N

Keeps the last two checkpoints. Prints nothing.
"""

from __future__ import annotations

import os
import signal
import sys

from ckptfmt._core.ops.directory.prune import apply_prune, plan_prune
from ckptfmt._core.runs.retention import RetentionPolicy


def main(directory: str, when: int) -> None:
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event == "os.remove" and str(arguments[0]).endswith(".ckptfmt"):
            count += 1
            if count == when:
                os.kill(os.getpid(), signal.SIGKILL)

    planned = plan_prune(directory, RetentionPolicy(keep_last=2))
    sys.addaudithook(watch)
    apply_prune(planned, wait_seconds=10)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
