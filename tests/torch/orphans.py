"""Kill a `torchrun` whose workers train on, start it again beside them, and tell how all of them ended.

Usage: orphans.py DIRECTORY
       orphans.py train RUN STEPS   (what torchrun starts: the steps are those that it takes at most)

Writes a JSON object: `second`, how the second torchrun ended; `orphans`, the exit codes of the first one's workers;
`said`, what both jobs said on stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

WORKERS = 2
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def train(train_url: str, steps: int) -> None:
    import torch
    import torch.distributed as dist

    from ckptfmt.torch import Checkpointer

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ckpt = Checkpointer(train_url, {"net": torch.nn.Linear(1, 1)}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(10_000)):
            time.sleep(0.05)
            ckpt.step()
            steps -= 1
            if not steps:
                break
        break
    ckpt.close()
    dist.barrier()
    dist.destroy_process_group()


def launch(runs: Path, steps: int, said: Path) -> subprocess.Popen[bytes]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}"]
    with said.open("wb") as stderr:
        return subprocess.Popen([*torchrun, __file__, "train", runs, str(steps)], stderr=stderr)


def wait_for(runs: Path, count: int) -> None:
    """Wait until there are so many checkpoints."""
    latest = time.monotonic() + 120
    while len(list(runs.glob("*.ckptfmt"))) < count:
        assert time.monotonic() < latest, "nothing is saved"
        time.sleep(0.05)


def reap(count: int) -> list[int]:
    return sorted(os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) for _ in range(count))


def main(directory: Path) -> None:
    # Orphans become children of this process, so that it learns how they end.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    runs = directory / "runs"
    first = launch(runs, 10_000, directory / "first")
    wait_for(runs, 3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_for(runs, len(list(runs.glob("*.ckptfmt"))) + 3)  # they train on
    second = launch(runs, 20, directory / "second")
    code = second.wait()
    said = [(directory / name).read_text() for name in ("first", "second")]
    print(json.dumps({"orphans": reap(WORKERS), "second": code, "said": said}))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2], int(sys.argv[3]))
    else:
        main(Path(sys.argv[1]))
