"""Few threads, little memory, few descriptors while a run saves, loads and verifies: `python -m tests.breaking.limits`.

Nothing fails by itself here: a limit of the system does, somewhere, at some time. Whatever fails, no checkpoint may be
damaged, and what is loaded is right.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

import ckptfmt.torch
from ckptfmt._core.storage.local.publication import direct_io as placing
from ckptfmt.errors import CkptfmtError
from tests.breaking.errors import STEPS, Marked, sound, train
from tests.breaking.injection import Ending, cases

_FIRST_USER = 70_000
"""Each case is a user of its own: threads are counted by user, and root has no limit."""

_STACKS = 4


@dataclass(frozen=True)
class Case:
    """A run with room for `room` more threads, descriptors or MiB of memory than it has when it begins to train."""

    number: int
    what: str
    room: int
    codec: str
    direct: bool
    directory: Path


def child(case: Case) -> dict[str, Any]:
    """Train, then load the newest checkpoint some times and verify it."""
    if case.direct:  # as on systems without uncached writes
        placing._FIRST_SOUND_DONTCACHE = (99, 0)
    state = Marked(1_500_000)
    ckpt = ckptfmt.torch.Checkpointer(
        case.directory, {"state": state}, save_interval_steps=1, keep_last=2, signals=(), codec=case.codec
    )
    ckpt.resume(quiet=True)
    bites = limit(case)
    trained = ""
    try:
        train(ckpt, state, STEPS)
    except (CkptfmtError, MemoryError) as error:
        trained = f"{type(error).__name__}: {error}"
    wrong = refused = 0
    path = ckpt.last_saved.path if ckpt.last_saved is not None else None
    for _ in range(5 if path is not None else 0):
        assert path is not None
        try:
            loaded = ckptfmt.torch.load(path)["state"]
            with ckptfmt.open(path) as checkpoint:
                problems = checkpoint.verify()
        except (CkptfmtError, MemoryError):
            refused += 1
            continue
        wrong += bool(problems) or not bool((loaded["values"] == len(loaded["steps"])).all())
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {"bites": bites, "trained": trained, "steps": len(state.steps), "wrong": wrong, "refused": refused}


def limit(case: Case) -> bool:
    """Set the limit, and say whether it is in force."""
    room = case.room
    match case.what:
        case "threads":
            case.directory.chmod(0o777)
            os.setgid(_FIRST_USER)
            os.setuid(_FIRST_USER + case.number)
            threads = sum(1 for _ in Path("/proc/self/task").iterdir())
            resource.setrlimit(resource.RLIMIT_NPROC, (threads + room, threads + room))
            return not _can_start(room + 1)
        case "descriptors":
            highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + room, highest + 1 + room))
        case _:
            _can_start(_STACKS)  # the system keeps their stacks: later threads begin, and find no memory
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            nbytes = pages * os.sysconf("SC_PAGE_SIZE") + (room << 20)
            resource.setrlimit(resource.RLIMIT_AS, (nbytes, resource.RLIM_INFINITY))
    return True


def _can_start(threads: int) -> bool:
    go = threading.Event()
    started = []
    try:
        for _ in range(threads):
            it = threading.Thread(target=go.wait)
            it.start()
            started.append(it)
    except RuntimeError:
        return False
    finally:
        go.set()
        for it in started:
            it.join()
    return True


def judge(ending: Ending) -> str:
    """Return which promise was broken; empty if none was."""
    case, said = ending.case, ending.said
    if ending.code != 0 or not said:
        return f"ended with {ending.code}: {ending.stderr[-400:]}"
    if not said["bites"]:
        return "the limit is not in force"
    if said["trained"] or said["steps"] != STEPS:
        return f"training ended after {said['steps']} steps: {said['trained']}"
    if said["wrong"]:
        return f"{said['wrong']} loads gave wrong values"
    found = sound(case.directory)
    return found if isinstance(found, str) else ""


def campaign(rounds: int, scratch: Path) -> dict[str, Any]:
    """Try each limit with little and with some room, so many times."""
    scratch.chmod(0o755)
    number = count()

    def case(what: str, room: int, codec: str, *, direct: bool) -> Case:
        directory = scratch / f"case-{next(number)}"
        directory.mkdir()
        return Case(int(directory.name[5:]), what, room, codec, direct, directory)

    rooms = {
        "threads": range(6) if os.getuid() == 0 else (),
        "descriptors": (0, 1, 2, 3, 5, 8),
        "memory": (0, 4, 8, 16, 32, 64),
    }
    todo = (
        case(what, room, codec, direct=direct)
        for _ in range(rounds)
        for what, some in rooms.items()
        for room in some
        for codec in ("none", "zstd")
        for direct in (False, True)
    )
    done = dict.fromkeys(rooms, 0)
    broken = []
    for ending in cases(todo, child, scratch):
        done[ending.case.what] += 1
        wrong = judge(ending)
        if wrong:
            it = ending.case
            how = f"{it.codec}, {'direct' if it.direct else 'as the system has it'}"
            broken.append(f"{it.what}, room for {it.room}, {how}: {wrong}")
        shutil.rmtree(ending.case.directory)
    return {"cases": done, "broken": broken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often each limit is tried")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ckptfmt-limits-") as name:
        json.dump(campaign(rounds, Path(name)), sys.stdout)


if __name__ == "__main__":
    main()
