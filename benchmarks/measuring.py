"""Rounds of measurements: everything once, one after the other, and again, so that all meet the same weather."""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks import system
from benchmarks.contenders import CONTENDERS, AsyncContender, Contender, Missing
from benchmarks.floors import Floors, make_copy
from benchmarks.training import train
from benchmarks.workloads import Training, Workload

__all__ = ["FLOOR", "Sample", "available", "measure_background", "measure_files", "measure_loop", "measure_resumes"]

FLOOR = "floor"
"""The name under which the floors stand among the contenders."""
_SLOW_S = 60
_IN_THE_LOOP = ("ckptfmt", "torch.save", "DCP")

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One measured value.

    Attributes:
        workload: Name of the workload.
        contender: Name of the contender, or `FLOOR`.
        metric: What was measured; its ending tells the unit: `_s` or `_bytes`.
        round: In which round.
        value: The value.
    """

    workload: str
    contender: str
    metric: str
    round: int
    value: float

    def to_json(self) -> dict[str, object]:
        """Return it in JSON."""
        return asdict(self)


def available(names: Sequence[str]) -> tuple[dict[str, Contender], dict[str, str]]:
    """Return the contenders that can be measured here, and why the others cannot."""
    there: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            there[name] = CONTENDERS[name]()
        except Missing as error:
            missing[name] = str(error)
    return there, missing


def measure_files(
    workload: Workload, contenders: dict[str, Contender], rounds: int, directory: Path, warn: Callable[[str], None]
) -> Iterator[Sample]:
    """Yield the times and peaks of saves and restores, and the floors of the same round."""
    source, target = workload.make(1), workload.make(2)
    floors = Floors(source.nbytes)
    copy = make_copy(source.tensors())
    slow: set[str] = set()
    for number in range(rounds):

        def sample(who: str, metric: str, value: float, number: int = number) -> Sample:
            return Sample(workload.name, who, metric, number, value)

        path = directory / "floor"
        system.remove(path)
        yield sample(FLOOR, "save_s", _timed(partial(floors.write, path)).seconds)
        system.warm(path)
        yield sample(FLOOR, "restore_s", _timed(partial(floors.read, path)).seconds)
        yield sample(FLOOR, "restore_all_cores_s", _timed(partial(floors.read_on_all_cores, path)).seconds)
        if system.evict(path):
            yield sample(FLOOR, "cold_restore_s", _timed(partial(floors.read, path)).seconds)
        yield sample(FLOOR, "hold_s", _timed(copy).seconds)
        system.remove(path)
        for name, contender in _rotated(contenders, number):
            if contender.saved_by in contenders or name in slow:
                continue  # it comes with the one that saves, or takes so long that once is enough
            begun = time.monotonic()
            path = directory / name.replace(" ", "-")
            try:
                yield from _one_save(sample, name, contender, source, path)
                for reader, restorer in contenders.items():
                    if reader == name or restorer.saved_by == name:
                        yield from _restores(sample, reader, restorer, source, target, path)
            except Exception as error:  # noqa: BLE001 - the others are to be measured all the same
                warn(f"{name}, {workload.name}: {type(error).__name__}: {error}")
            system.remove(path)
            if time.monotonic() - begun > _SLOW_S:
                slow.add(name)


def _one_save(
    sample: Callable[[str, str, float], Sample], name: str, contender: Contender, source: Training, path: Path
) -> Iterator[Sample]:
    system.remove(path)
    with system.peak_memory() as peak:
        taken = _timed(lambda: contender.save(source, path))
    yield sample(name, "save_s", taken.seconds)
    yield sample(name, "save_cpu_s", taken.cpu_seconds)
    if peak.nbytes is not None:
        yield sample(name, "save_peak_bytes", peak.nbytes)
    yield sample(name, "file_bytes", sum(file.stat().st_size for file in system.files_below(path)))


def _restores(
    sample: Callable[[str, str, float], Sample],
    name: str,
    contender: Contender,
    source: Training,
    target: Training,
    path: Path,
) -> Iterator[Sample]:
    def restore() -> None:
        contender.restore(target, path)
        target.touch()

    system.warm(path)
    target.reset()
    with system.peak_memory() as peak:
        taken = _timed(restore)
    yield sample(name, "restore_s", taken.seconds)
    yield sample(name, "restore_cpu_s", taken.cpu_seconds)
    if peak.nbytes is not None:
        yield sample(name, "restore_peak_bytes", peak.nbytes)
    yield sample(name, "exact", float(target.same_as(source)))
    target.reset()
    gc.collect()
    if system.evict(path):
        yield sample(name, "cold_restore_s", _timed(restore).seconds)
        target.reset()


def measure_background(
    workload: Workload, contenders: dict[str, Contender], rounds: int, directory: Path
) -> Iterator[Sample]:
    """Yield for how long a save in the background holds the loop, the first time and later."""
    source = workload.make(1)
    copy = make_copy(source.tensors())
    for name, contender in contenders.items():
        if not isinstance(contender, AsyncContender):
            continue
        for number in range(rounds + 1):
            if number:
                yield Sample(workload.name, FLOOR, f"hold_{name}_s", number - 1, _timed(copy).seconds)
            path = directory / f"background-{name}-{number if name == 'DCP' else 0}"
            with system.peak_memory() as peak:
                begun = time.perf_counter()
                wait = contender.begin(source, path)
                held = time.perf_counter() - begun
                wait()
            yield Sample(workload.name, name, "hold_s" if number else "first_hold_s", max(0, number - 1), held)
            if peak.nbytes is not None and not number:
                yield Sample(workload.name, name, "background_peak_bytes", 0, peak.nbytes)
        for path in directory.glob("background-*"):
            system.remove(path)


def measure_loop(
    workload: Workload, contenders: dict[str, Contender], rounds: int, steps: int, directory: Path
) -> Iterator[Sample]:
    """Yield how long a few steps of training take with a save at their beginning, and what they took before and after.

    The save has to be done at the end, or is waited for: all that it takes from the training is in the difference.
    """
    training = workload.make(1)
    train(training, 2)
    chosen = {name: contenders[name] for name in _IN_THE_LOOP if name in contenders}
    for name, contender in chosen.items():
        if isinstance(contender, AsyncContender):  # the first save makes the staging memory
            contender.begin(training, directory / f"loop-{name}")()

    def window(contender: Contender | None, path: Path) -> float:
        os.sync()
        begun = time.perf_counter()
        wait = _begin(contender, training, path)
        train(training, steps)
        wait()
        return time.perf_counter() - begun

    before = window(None, directory)
    for number in range(rounds):
        for name, contender in _rotated(chosen, number):
            path = directory / f"loop-{name}{'' if name == 'ckptfmt' else number}"
            saving = window(contender, path)
            _clear(directory, keep="ckptfmt")
            after = window(None, directory)
            yield Sample(workload.name, name, "loop_s", number, saving)
            yield Sample(workload.name, name, "loop_bare_s", number, (before + after) / 2)
            before = after
    _clear(directory, keep=None)


def _begin(contender: Contender | None, training: Training, path: Path) -> Callable[[], None]:
    if isinstance(contender, AsyncContender):
        return contender.begin(training, path)
    if contender is not None:
        contender.save(training, path)
    return lambda: None


def _clear(directory: Path, *, keep: str | None) -> None:
    for path in directory.glob("loop-*"):
        if path.name != f"loop-{keep}":
            system.remove(path)


def measure_resumes(
    workload: Workload, contenders: dict[str, Contender], rounds: int, directory: Path, warn: Callable[[str], None]
) -> Iterator[Sample]:
    """Yield what a restore takes in a new process, with an optimizer that has no moments yet."""
    source = workload.make(1)
    paths = {}
    for name, contender in contenders.items():
        paths[name] = directory / f"resume-{(contender.saved_by or name).replace(' ', '-')}"
        if not paths[name].exists():
            try:
                contender.save(source, paths[name])
            except Exception as error:  # noqa: BLE001 - the others are to be measured all the same
                warn(f"{name}, {workload.name}: {type(error).__name__}: {error}")
                system.remove(paths.pop(name))
    del source
    for number in range(rounds):
        for name, path in _rotated(paths, number):
            system.warm(path)
            command = [sys.executable, "-m", "benchmarks.resume", name, workload.name, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                warn(f"{name}, {workload.name}, new process: {done.stderr.strip().splitlines()[-1:]}")
                continue
            for metric, value in json.loads(done.stdout.splitlines()[-1]).items():
                yield Sample(workload.name, name, metric, number, value)
    for path in set(paths.values()):
        system.remove(path)


@dataclass(frozen=True)
class _Taken:
    seconds: float
    cpu_seconds: float


def _timed(work: Callable[[], object]) -> _Taken:
    gc.collect()
    os.sync()
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    return _Taken(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _rotated(items: dict[str, T], number: int) -> list[tuple[str, T]]:
    pairs = list(items.items())
    first = number % max(len(pairs), 1)
    return pairs[first:] + pairs[:first]
