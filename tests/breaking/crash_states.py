"""What a power cut may leave, at each operation, of what was said to be durable.

Run it by `python -m tests.breaking.crash_states`.

A program does its work with `recorder.c` preloaded, and marks in the record what it was told to be durable, the moment
it was told. The record is then replayed on a careless disk (`disk.py`): after each operation, every state that it may
leave is written down and looked at. Prints how many there were, and what was wrong, as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt.errors import CkptfmtError
from tests.breaking.disk import Disk, Tree, fingerprint, read_record, write_tree
from tests.breaking.injection import HERE, compiler

__all__ = ["SCENARIOS", "Crash", "Findings", "Scenario", "crashes", "look", "run_recorded"]

SEED = 1
SAMPLES = 6
"""States at random, at each operation."""


@dataclass(frozen=True)
class Crash:
    """A state that a power cut may leave.

    Attributes:
        at: Number of operations done before it.
        after: The last one of them.
        marks: What was said to be durable before it.
        tree: What is left.
    """

    at: int
    after: str
    marks: tuple[str, ...]
    tree: Tree


@dataclass(frozen=True)
class Scenario:
    """Something that says what is durable.

    Attributes:
        prepare: Fills a directory with what is there, and durable, before.
        act: Does the work in that directory, and marks what it was told to be durable.
        judge: Says what is wrong with the directory after a power cut, if anything, given the last mark.
    """

    prepare: Callable[[Path], object]
    act: Callable[[Path, Callable[[object], None]], object]
    judge: Callable[[Path, Any], str]


@dataclass(frozen=True)
class Findings:
    """What came of a scenario.

    Attributes:
        operations: How many there were.
        marks: How often something was said to be durable.
        states: How many states were looked at; of equal ones, one.
        broken: What was wrong.
    """

    operations: int
    marks: int
    states: int
    broken: tuple[str, ...]


def crashes(disk: Disk, record: Path, samples: int = SAMPLES) -> Iterator[Crash]:
    """Yield the states that a power cut may leave during what was recorded, each once for what was said before it."""
    dice = random.Random(SEED)
    seen = set()
    for at, done in enumerate(read_record(record), start=1):
        disk.apply(done)
        for tree in disk.states(dice, samples):
            known = (fingerprint(tree), len(disk.marks))
            if known not in seen:
                seen.add(known)
                yield Crash(at, str(done), tuple(disk.marks), tree)


def look(name: str, scratch: Path, spoil: str = "") -> Findings:
    """Let a scenario be recorded, and judge every state that a power cut may leave.

    Args:
        name: The scenario.
        scratch: An empty directory, best in memory.
        spoil: What is left undone (see `SPOILS`), to see that it would be noticed.
    """
    scenario = SCENARIOS[name]
    root, record = scratch / "root", scratch / "record"
    root.mkdir()
    scenario.prepare(root)
    disk = Disk(root)
    run_recorded(name, root, record, spoil)
    states = 0
    broken = []
    for crash in crashes(disk, record):
        states += 1
        left = scratch / "left"
        left.mkdir()
        write_tree(crash.tree, left)
        wrong = scenario.judge(left, json.loads(crash.marks[-1]) if crash.marks else None)
        if wrong:
            broken.append(f"{name}, operation {crash.at} ({crash.after}): {wrong}")
        shutil.rmtree(left)
    return Findings(len(read_record(record)), len(disk.marks), states, tuple(broken))


def run_recorded(name: str, root: Path, record: Path, spoil: str = "") -> None:
    """Do the work of a scenario in a process of its own, and record it."""
    command = compiler()
    assert command is not None, "needs a C compiler"
    library = record.with_suffix(".so")
    subprocess.run([command, "-shared", "-fPIC", "-O2", "-o", library, HERE / "recorder.c", "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    arguments = ["--child", name, "--root", str(root), "--record", str(record), "--spoil", spoil]
    program = [sys.executable, "-m", "tests.breaking.crash_states", *arguments]
    subprocess.run(program, env=environment, cwd=HERE.parents[1], check=True)


def _be_recorded(name: str, root: Path, record: Path, spoil: str) -> None:
    library = ctypes.CDLL(None)
    if spoil:
        SPOILS[spoil]()

    def mark(what: object) -> None:
        library.record_mark(json.dumps(what).encode())

    library.record_begin(os.fsencode(root), os.fsencode(record))
    SCENARIOS[name].act(root, mark)
    library.record_end()


# What may be left undone.


def _flush_no_directory() -> None:
    from ckptfmt._core.storage.local import durability
    from ckptfmt._core.storage.local.publication import atomic_directory as directory
    from ckptfmt._core.storage.local.publication import temporary

    for module in (durability, directory, temporary):
        module.flush_directory = lambda *_: None  # type: ignore[attr-defined]  # it has the name by import


def _flush_no_file() -> None:
    from ckptfmt._core.ops.members import extract
    from ckptfmt._core.storage.local.publication import atomic_file as publishing

    for module in (publishing, extract):
        module.flush_file = lambda _: None  # type: ignore[attr-defined]  # it has the name by import


SPOILS: dict[str, Callable[[], None]] = {"directories": _flush_no_directory, "files": _flush_no_file}


# A training.

RUN = Path("new", "deeper", "run")
STEPS = 3


def _train(root: Path, mark: Callable[[object], None], elements: int = 3_000, steps: int = STEPS) -> None:
    import torch  # only some scenarios need it

    from ckptfmt.torch import Checkpointer

    class Values:
        def __init__(self) -> None:
            self.values = torch.zeros(elements)

        def state_dict(self) -> dict[str, Any]:
            return {"values": self.values}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.values.copy_(state["values"])

    torch.set_num_threads(1)
    for _ in range(2):  # the second one goes on where the first one was left
        values = Values()
        ckpt = Checkpointer(root / RUN, {"state": values}, save_interval_steps=1, keep_last=2, signals=())
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(1):
            for _ in ckpt.batches(range(2 * steps)):
                values.values.add_(1)
                ckpt.step()
                ckpt.wait()
                assert ckpt.last_saved is not None
                mark({"step": ckpt.global_step})
                if ckpt.global_step == steps:
                    break
            break
        ckpt.close()


def _judge_training(left: Path, said: Any) -> str:
    directory = left / RUN
    if not directory.is_dir():
        return "" if said is None else f"the directory of the run is gone, and step {said['step']} was durable"
    unsound = _unsound(directory)
    if unsound:
        return unsound
    newest = find_latest(directory, verify=True).file
    step = -1 if newest is None else newest.metadata.step or 0
    return "" if said is None or step >= said["step"] else f"the newest is of step {step}, {said['step']} was durable"


def _unsound(directory: Path) -> str:
    """Return what is wrong with a published checkpoint, if anything."""
    for path in sorted(directory.glob("*.ckptfmt")):
        try:
            with ckptfmt.open(path) as checkpoint:
                problems = checkpoint.verify()
        except CkptfmtError as error:
            return f"{path.name}: {error}"
        if problems:
            return f"{path.name}: {problems[0]}"
    return ""


# One file, replaced again and again.


def _save(directory: Path, step: int, name: str = "a.ckptfmt") -> None:
    net = {"w": np.arange(2_000, dtype=np.float32) + step}
    ckptfmt.save({"net": net, "optimizer": {"lr": 0.1}}, directory / name, step=step, run_id="r")


def _replace(root: Path, mark: Callable[[object], None]) -> None:
    for step in (2, 3):
        _save(root, step)
        mark({"step": step})


def _judge_replacing(left: Path, said: Any) -> str:
    if not (left / "a.ckptfmt").exists():
        return "the file is gone"
    unsound = _unsound(left)
    if unsound:
        return unsound
    with ckptfmt.open(left / "a.ckptfmt") as checkpoint:
        step = checkpoint.metadata.step or 0
    least = 1 if said is None else said["step"]
    return "" if step >= least else f"it is of step {step}, {least} was durable"


# Directories that appear as a whole.


def _write_directories(root: Path, mark: Callable[[object], None]) -> None:
    from ckptfmt._core.ops.conversion.export import export
    from ckptfmt._core.ops.members.extract import extract

    extract(root / "a.ckptfmt", root / "out")
    mark(["out"])
    export(root / "a.ckptfmt", root / "hf", component="net", shard_bytes=3_000)
    mark(["out", "hf"])


def _judge_directories(left: Path, said: Any) -> str:
    files = {"out": 3, "hf": 1}
    for name in files:
        made = left / name
        if not made.is_dir():
            if said is not None and name in said:
                return f"{name} is gone, and was durable"
            continue
        found = [path for path in made.iterdir() if path.stat().st_size]
        if len(found) != files[name]:
            return f"{name} has {len(found)} whole files"
    return ""


# A tree that is converted.


def _prepare_tree(root: Path) -> None:
    (root / "old" / "below").mkdir(parents=True)
    for path in (root / "old" / "a.npz", root / "old" / "below" / "b.npz"):
        np.savez(path, w=np.ones(100, np.float32))


def _convert(root: Path, mark: Callable[[object], None]) -> None:
    from ckptfmt._core.ops.conversion.convert_tree import convert_tree, plan_tree
    from ckptfmt._core.ops.conversion.report import ConvertReport

    done: list[str] = []

    def tell(report: object) -> None:
        assert isinstance(report, ConvertReport)
        done.append(str(Path(report.target).relative_to(root)))
        mark(done)

    convert_tree(plan_tree(root / "old", root / "new" / "tree"), done=tell)


def _judge_tree(left: Path, said: Any) -> str:
    for name in said or []:
        if not (left / name).exists():
            return f"{name} is gone, and was durable"
    return next(filter(None, map(_unsound, [left / "new" / "tree", left / "new" / "tree" / "below"])), "")


# Pins, and what a prune leaves.


def _prepare_run(root: Path) -> None:
    for step in (1, 2, 3):
        _save(root, step, f"{step}.ckptfmt")


def _pin_and_prune(root: Path, mark: Callable[[object], None]) -> None:
    from ckptfmt._core.ops.directory.pins import pin
    from ckptfmt._core.ops.directory.prune import apply_prune, plan_prune
    from ckptfmt._core.runs.retention import RetentionPolicy

    pin(root / "1.ckptfmt")
    mark("pinned")
    apply_prune(plan_prune(root, RetentionPolicy(keep_last=1)))
    mark("pruned")


def _judge_pins(left: Path, said: Any) -> str:
    if not (left / "1.ckptfmt").exists() or not (left / "3.ckptfmt").exists():
        return "what stays is gone"
    if said is not None and not (left / "1.ckptfmt.pin").exists():
        return "the pin is gone, and was durable"
    return _unsound(left)


SCENARIOS = {
    "training": Scenario(lambda root: None, _train, _judge_training),
    "large": Scenario(
        lambda root: None, lambda root, mark: _train(root, mark, 300_000, 2), _judge_training
    ),  # past the page cache
    "replace": Scenario(lambda root: _save(root, 1), _replace, _judge_replacing),
    "directories": Scenario(lambda root: _save(root, 1), _write_directories, _judge_directories),
    "tree": Scenario(_prepare_tree, _convert, _judge_tree),
    "pins": Scenario(_prepare_run, _pin_and_prune, _judge_pins),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(SCENARIOS)}; none: all")
    parser.add_argument("--spoil", default="", choices=["", *SPOILS], help="leave something undone, to see it noticed")
    for name in ("child", "root", "record"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _be_recorded(options.child, Path(options.root), Path(options.record), options.spoil)
        return
    found = {}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for name in options.names or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="ckptfmt-crash-", dir=memory) as scratch:
            found[name] = asdict(look(name, Path(scratch), options.spoil))
    json.dump(found, sys.stdout, indent=2)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
