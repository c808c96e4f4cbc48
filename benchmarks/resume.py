"""One restore in a process of its own: `python -m benchmarks.resume CONTENDER WORKLOAD PATH`; the result is JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks import system
from benchmarks.contenders import CONTENDERS
from benchmarks.workloads import WORKLOADS


def main() -> None:
    """Restore, and print how long it took and how much memory it needed beyond the new moments' own."""
    name, workload, path = sys.argv[1:]
    contender = CONTENDERS[name]()
    training = WORKLOADS[workload].make(2, moments=False)
    with system.peak_memory() as peak:
        begun = time.perf_counter()
        contender.restore(training, Path(path))
        training.touch()
        result: dict[str, float] = {"resume_s": time.perf_counter() - begun}
    if peak.nbytes is not None:
        moments = sum(value.nbytes for state in training.optimizer.state.values() for value in state.values())
        result["resume_extra_bytes"] = max(0, peak.nbytes - moments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
