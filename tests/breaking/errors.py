"""An error at each file operation of saves and of resumes, one after the other: `python -m tests.breaking.errors`.

Run it by `run_with_errors`. It prints what came of each case that broke a promise, as JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import ckptfmt
from ckptfmt.errors import CkptfmtError, UndecidedError
from ckptfmt.torch import Checkpointer
from tests.breaking.injection import ERRNOS, Ending, Shim, cases

STEPS = 6
THERE = 3
"""Checkpoints in the directory from which runs resume."""

LAST_READS = 2
"""How many operations before the end of a resume may still be reads: those of the checkpoint that was chosen."""


class Marked:
    """A state that tells of which step it is: every value is the number of steps."""

    def __init__(self, size: int = 70_000) -> None:
        self.values = torch.zeros(size)
        self.steps: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "steps": list(self.steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values.copy_(state["values"])
        self.steps = list(state["steps"])

    def step(self) -> None:
        self.values.add_(1)
        self.steps.append(len(self.steps) + 1)

    @property
    def whole(self) -> bool:
        return bool((self.values == len(self.steps)).all()) and self.steps == [*range(1, len(self.steps) + 1)]


@dataclass(frozen=True)
class Case:
    """One operation that fails: the `at`-th, with this error; all later ones, too, if `persistent`.

    So many operations follow it if none fails: `rest`.
    """

    at: int
    error: str
    persistent: bool
    directory: Path
    rest: int = 0


def make(directory: Path, state: Marked) -> Checkpointer:
    return Checkpointer(directory, {"state": state}, save_interval_steps=1, keep_last=2, signals=())


def train(ckpt: Checkpointer, state: Marked, steps: int) -> None:
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(STEPS)):
            state.step()
            ckpt.step()
            ckpt.wait()
            if len(state.steps) == steps:
                ckpt.close()
                return


def save(case: Case) -> dict[str, Any]:
    """Train while an operation fails."""
    state = Marked()
    ckpt = make(case.directory, state)
    ckpt.resume(quiet=True)
    shim = Shim()
    shim.arm(case.directory, case.at, ERRNOS[case.error], persistent=case.persistent)
    try:
        train(ckpt, state, STEPS)
        last = ckpt.last_saved
    finally:
        count = shim.disarm()
    return {"count": count, "failed": shim.failed, "steps": len(state.steps), "last": last and last.path}


def resume(case: Case) -> dict[str, Any]:
    """Resume while an operation fails."""
    state = Marked()
    ckpt = make(case.directory, state)
    shim = Shim()
    shim.arm(case.directory, case.at, ERRNOS[case.error], persistent=case.persistent)
    error, ends = "", 0
    try:
        report = ckpt.resume(quiet=True)
    except CkptfmtError as caught:
        error, ends = type(caught).__name__, getattr(caught, "code", 1)
    finally:
        count = shim.disarm()
    told = {"count": count, "failed": shim.failed, "error": error, "ends": ends}
    return told if error else {**told, "step": report.step, "whole": state.whole, "steps": len(state.steps)}


def judge_save(ending: Ending) -> str:
    """Return which promise was broken; empty if none was."""
    case, said = ending.case, ending.said
    if ending.code != 0:
        return f"training ended with {ending.code}: {ending.stderr[-300:]}"
    if said["steps"] != STEPS:
        return f"training did {said['steps']} steps"
    found = sound(case.directory)
    if isinstance(found, str):
        return found
    if not case.persistent and max(found, default=0) < STEPS - 1:
        return f"newest checkpoint: {max(found, default=0)}"
    if said["last"] is not None and not Path(said["last"]).exists():
        return f"last_saved is not there: {said['last']}"
    if not case.persistent and said["last"] is None:
        return "last_saved is None"
    state = Marked()
    ckpt = make(case.directory, state)
    report = ckpt.resume(quiet=True)
    if report.step != max(found, default=0) or not state.whole:
        return f"resumed at {report.step} of {sorted(found)}"
    ckpt.save()
    ckpt.close()
    rest = [path.name for path in case.directory.glob(".*.tmp")]
    return f"left over: {rest}" if rest else ""


def judge_resume(ending: Ending) -> str:
    """Return which promise was broken; empty if none was."""
    case, said = ending.case, ending.said
    if ending.code != 0 or not said:
        return f"ended with {ending.code}: {ending.stderr[-300:]}"
    found = sound(case.directory)
    if isinstance(found, str):
        return found
    if len(found) != THERE:
        return f"checkpoints that are left: {sorted(found)}"
    if said["error"]:
        if not case.persistent:
            return f"one error, and it gave up: {said['error']}"
        expected = {("UndecidedError", UndecidedError.exit_code)}
        if case.rest <= LAST_READS and "read" in said["failed"]:
            expected = {("ReadError", 1)}
        found_end = (said["error"], said["ends"])
        return "" if found_end in expected else f"gave up with {said['error']}, which exits with {said['ends']}"
    if said["step"] != THERE or said["steps"] != THERE or not said["whole"]:
        return f"resumed at {said['step']} with a state of {said['steps']}"
    return ""


def sound(directory: Path) -> dict[int, Path] | str:
    """Return the checkpoints of a directory by step, or what is wrong with one of them."""
    found: dict[int, Path] = {}
    for path in sorted(directory.glob("*.ckptfmt")):
        with ckptfmt.open(path) as checkpoint:
            if checkpoint.verify():
                return f"{path.name} is damaged"
            if checkpoint.metadata.step is None or checkpoint["state"].load()["steps"][-1:] != [
                checkpoint.metadata.step
            ]:
                return f"{path.name} holds another step"
            found[checkpoint.metadata.step] = path
    return found


def campaign(what: str, errors: list[str], every: int, scratch: Path) -> dict[str, Any]:
    """Let each `every`-th operation fail, once and from then on, with each of some errors."""
    child, judge = {"saves": (save, judge_save), "resumes": (resume, judge_resume)}[what]
    template = scratch / "template"
    state = Marked()
    ckpt = Checkpointer(template, {"state": state}, save_interval_steps=1, signals=())
    ckpt.resume(quiet=True)
    train(ckpt, state, THERE)
    number = operations = 0

    def case(at: int, error: str, *, persistent: bool) -> Case:
        nonlocal number
        number += 1
        directory = scratch / f"case-{number}" / "run"
        directory.parent.mkdir()
        if what == "resumes":
            shutil.copytree(template, directory)
        return Case(at, error, persistent, directory, operations - at)

    (calm,) = cases([case(0, "EIO", persistent=False)], child, scratch)
    operations = calm.said["count"]
    todo = (
        case(at, error, persistent=persistent)
        for at in range(1, operations + 1, every)
        for error in errors
        for persistent in (False, True)
    )
    broken = []
    done = hit = 0
    for ending in cases(todo, child, scratch):
        done += 1
        hit += bool(ending.said.get("failed"))
        wrong = judge(ending)
        if wrong:
            it = ending.case
            how = "from then on" if it.persistent else "once"
            broken.append(f"{it.error} {how} at operation {it.at} ({ending.said.get('failed')}): {wrong}")
        shutil.rmtree(ending.case.directory.parent)
    return {"operations": operations, "cases": done, "hit": hit, "broken": broken, "calm": judge(calm)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["saves", "resumes"])
    parser.add_argument("--errors", default=",".join(ERRNOS), help="names of errors, with commas")
    parser.add_argument("--every", type=int, default=1, help="only each so many operations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ckptfmt-errors-") as name:
        found = campaign(options.what, options.errors.split(","), options.every, Path(name))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
