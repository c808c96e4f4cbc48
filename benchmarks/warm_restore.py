"""A warm restore beside its bound: hash every byte on all cores, and copy the file once into live memory.

`python -m benchmarks.warm_restore` prints a table. Each round has one new process per library. It restores several
times into a model and an optimizer that have their memory, the file being in the page cache; then it measures the bound
with the same file and the same memory. So each ratio is of one process, and the first restore, which is the one that
counts in a training, is told apart from the next ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
import torch.utils.dlpack
from blake3 import blake3

from benchmarks import system
from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.base import Contender, Missing, as_bytes, flatten, require
from benchmarks.floors import in_threads
from benchmarks.workloads import WORKLOADS, Training

__all__ = ["Bound", "Times", "measure"]

_PIECE_BYTES = 4 << 20
_REPEATS = 3
_NAMES = ("ckptfmt", "ztensor")


@dataclass(frozen=True)
class Bound:
    """What no verified restore on these cores can be much faster than; medians, in seconds.

    Attributes:
        hash_s: BLAKE3 of the bytes in live memory, one thread for each core.
        copy_s: Copy of the cached file into live memory, one thread for each core.
        fused_s: Both in one pass: each thread copies 4 MiB and hashes them at once.
    """

    hash_s: float
    copy_s: float
    fused_s: float

    @property
    def seconds(self) -> float:
        """The bound: the hash and the copy, one after the other."""
        return self.hash_s + self.copy_s


@dataclass(frozen=True)
class Times:
    """Restores in one new process, in seconds.

    Attributes:
        first_s: The first restore.
        next_s: Median of the next ones.
        bound: The bound, measured after them.
        exact: Whether the values are those that were saved.
    """

    first_s: float
    next_s: float
    bound: Bound
    exact: bool


def measure(name: str, workload: str, path: Path) -> Times:
    """Restore in this process, then measure the bound."""
    restore = _restorer(name)
    training = WORKLOADS[workload].make(2)
    system.warm(path)

    def once() -> None:
        restore(training, path)
        training.touch()

    first = _seconds(once)
    following = median(_seconds(once) for _ in range(_REPEATS))
    exact = training.same_as(WORKLOADS[workload].make(1))
    return Times(first, following, _bound(training.tensors(), path), exact)


def _bound(tensors: Iterable[torch.Tensor], path: Path) -> Bound:
    pieces = _pieces(tensors, path.stat().st_size)
    descriptor = os.open(path, os.O_RDONLY)

    def copy(offset: int, memory: memoryview) -> None:
        os.preadv(descriptor, [memory], offset)

    def digest(_: int, memory: memoryview) -> None:
        blake3(memory).digest()

    def both(offset: int, memory: memoryview) -> None:
        copy(offset, memory)
        digest(offset, memory)

    hash_s, copy_s, fused_s = (
        median(_seconds(lambda: _on_all_cores(work, pieces)) for _ in range(_REPEATS))  # noqa: B023 - called at once
        for work in (digest, copy, both)
    )
    os.close(descriptor)
    return Bound(hash_s, copy_s, fused_s)


def _pieces(tensors: Iterable[torch.Tensor], file_bytes: int) -> list[tuple[int, memoryview]]:
    """Return live memory in pieces, each with a place in the file from which it can be filled."""
    found = []
    offset = 0
    for tensor in tensors:
        memory = as_bytes(tensor)
        for start in range(0, len(memory), _PIECE_BYTES):
            piece = memory[start : start + _PIECE_BYTES]
            found.append((min(offset, file_bytes - len(piece)), piece))
            offset += len(piece)
    return found


def _on_all_cores(work: Callable[[int, memoryview], None], pieces: list[tuple[int, memoryview]]) -> None:
    def run(numbers: Iterator[int]) -> None:
        for number in numbers:
            work(*pieces[number])

    in_threads(os.cpu_count() or 1, run, len(pieces))


def _restorer(name: str) -> Callable[[Training, Path], None]:
    return _ztensor_in_place if name == "ztensor" else CONTENDERS[name]().restore


def _ztensor_in_place(training: Training, path: Path) -> None:
    """Verify with ztensor, then copy each tensor to its place: faster here than to let the optimizer make new ones."""
    live, _ = flatten(training)
    with require("ztensor").open(str(path)) as source:
        source.verify(deep=True)
        with torch.no_grad():
            for name, saved in source.items():
                live[name].copy_(torch.utils.dlpack.from_dlpack(saved).view(live[name].shape))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _table(found: dict[str, list[Times]]) -> str:
    lines = [
        "| | first restore | next ones | bound: hash + copy | in one pass | first / bound | next / bound | exact |",
        f"| ---{' | ---:' * 7} |",
    ]
    for name, rounds in found.items():
        first, following = ([it.first_s for it in rounds], [it.next_s for it in rounds])
        bounds = [it.bound for it in rounds]
        cells = [
            f"{_ms(first)} ({1000 * min(first):.0f} to {1000 * max(first):.0f})",
            _ms(following),
            f"{_ms(it.hash_s for it in bounds)} + {_ms(it.copy_s for it in bounds)}",
            _ms(it.fused_s for it in bounds),
            f"{median(it.first_s / it.bound.seconds for it in rounds):.2f}x",
            f"{median(it.next_s / it.bound.seconds for it in rounds):.2f}x",
            "yes" if all(it.exact for it in rounds) else "**no**",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ms(values: Iterable[float]) -> str:
    return f"{1000 * median(values):.0f} ms"


def _saved(contenders: dict[str, Contender], workload: str, directory: Path) -> dict[str, Path]:
    training = WORKLOADS[workload].make(1)
    paths = {name: directory / name for name in contenders}
    for name, contender in contenders.items():
        contender.save(training, paths[name])
    return paths


def _in_new_process(name: str, workload: str, path: Path) -> Times:
    command = [sys.executable, "-m", "benchmarks.warm_restore", "--child", name, str(path), "--workload", workload]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    values = json.loads(done.stdout)
    return Times(values["first_s"], values["next_s"], Bound(**values["bound"]), values["exact"])


def main() -> int:
    """Measure what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm_restore", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workload", choices=WORKLOADS, default="gpt2")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where to save")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(asdict(measure(args.child[0], args.workload, Path(args.child[1])))))
        return 0
    contenders: dict[str, Contender] = {}
    for name in _NAMES:
        try:
            contenders[name] = CONTENDERS[name]()
        except Missing as error:
            print(f"left out: {error}", file=sys.stderr)
    found: dict[str, list[Times]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=args.directory) as scratch:
        paths = _saved(contenders, args.workload, Path(scratch))
        for number in range(args.rounds):
            for name in list(paths) if number % 2 else list(paths)[::-1]:
                found[name].append(_in_new_process(name, args.workload, paths[name]))
    print(_table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
