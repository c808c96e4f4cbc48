"""How long the commands take that look at checkpoints without training: `verify`, `ls`, `inspect`, and the start."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import ckptfmt.torch
from benchmarks import system
from benchmarks.contenders.base import state_of
from benchmarks.floors import Floors
from benchmarks.workloads import Workload

__all__ = ["measure_commands"]

_FILES = 1000


def measure_commands(workload: Workload, rounds: int, directory: Path) -> Iterator[tuple[str, str, int, float]]:
    """Yield (who, metric, round, seconds); `floor` is the hash of the same bytes in memory, on all cores."""
    training = workload.make(1)
    path, many = directory / "one.ckptfmt", directory / "many"
    ckptfmt.torch.save(state_of(training), path)
    small = directory / "small.ckptfmt"
    rows = {name: tensor[:1].clone() for name, tensor in training.model.state_dict().items()}
    ckptfmt.torch.save({"net": rows}, small, step=1, run_id="a")
    many.mkdir()
    for number in range(_FILES):
        shutil.copyfile(small, many / f"{number:04d}.ckptfmt")
    floors = Floors(path.stat().st_size)
    commands = {
        "verify_s": ["verify", str(path)],
        "ls_s": ["ls", str(many)],
        "inspect_s": ["inspect", str(path)],
        "start_s": ["--version"],
    }
    for number in range(rounds):
        yield "floor", "verify_s", number, _seconds(floors.hash_on_all_cores)
        for metric, arguments in commands.items():
            system.warm(path)
            command = [sys.executable, "-m", "ckptfmt_cli", *arguments]
            yield "ckptfmt", metric, number, _seconds(partial(_run, command))
    for file in (path, small, many):
        system.remove(file)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
