"""Runs that are killed or told to leave, again and again until they are done, and what came of them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.torture.training import closing, newest, talk_of, train

LEFT = 75
MAX_LIVES = 60
Disturb = Callable[[BaseProcess, Path], None]
"""Waits for some moment in the life of a process, and ends it."""
Train = Callable[[Path, "Connection | None"], None]
"""Trains to the end, and tells where it resumed, and each step that is done or saved."""


@dataclass(frozen=True)
class Figures:
    """What came of a campaign.

    Attributes:
        runs: Runs that were disturbed until they were done.
        disturbed: How often a process was killed or told to leave.
        in_save: How many of these times a temporary file lay there: a save was under way.
        unresumable: Processes that failed, and runs that never came to their end.
        divergent: Runs whose end is not bit-identical to the undisturbed one.
        lost_too_much: Times that a run went on from before its last completed save.
        lost_steps: Steps that had to be done again, in all.
        seconds: How long it took.
    """

    runs: int
    disturbed: int
    in_save: int
    unresumable: int
    divergent: int
    lost_too_much: int
    lost_steps: int
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.unresumable or self.divergent or self.lost_too_much)


@dataclass
class Life:
    """One process of a run: what it told, and how it ended."""

    code: int | None
    resumed: int | None = None
    done: int = 0
    saved: int = 0
    in_save: bool = False


def live(context: ForkServerContext, train_url: Path, disturb: Disturb | None, program: Train = train) -> Life:
    """Let a process train until it ends or is disturbed."""
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=program, args=(train_url, there))
    process.start()
    there.close()
    with closing(here):
        if disturb is not None:
            disturb(process, train_url)
        told = []
        try:
            # Its own workers may outlive the process for seconds and keep the pipe open.
            while wait([here, process.sentinel]) and (here.poll() or process.is_alive()):
                if here.poll():
                    told.append(here.recv())
        except EOFError:
            pass
    process.join()
    life = Life(process.exitcode, in_save=any(path.suffix == ".tmp" for path in train_url.glob(".*")))
    for what, step in told:
        setattr(life, what, step)
    return life


def kill_in_a_save_or_anywhere(chance: random.Random) -> Disturb:
    """Return what kills: mostly in the middle of a save, else at any moment of a life."""

    def disturb(process: BaseProcess, train_url: Path) -> None:
        if chance.random() < 0.7:
            wait_for_a_save(process, train_url, nth=chance.randrange(4))
            time.sleep(chance.uniform(0, 0.008))
        else:
            time.sleep(chance.uniform(0, 0.3))
        process.kill()

    return disturb


def wait_for_a_save(process: BaseProcess, train_url: Path, nth: int) -> None:
    """Return when a temporary file is there for the n-th time, or the process has ended."""
    seen: set[str] = set()
    while process.is_alive() and len(seen) <= nth:
        if train_url.exists():
            seen |= {entry.name for entry in os.scandir(train_url) if entry.name.endswith(".tmp")}
        time.sleep(0.0003)


def tell_to_leave_anywhere(chance: random.Random) -> Disturb:
    """Return what sends SIGTERM when the training has begun."""

    def disturb(process: BaseProcess, train_url: Path) -> None:
        wait_for_a_save(process, train_url, nth=0)
        time.sleep(chance.uniform(0, 0.08))
        process.terminate()

    return disturb


def torture(
    context: ForkServerContext,
    directory: Path,
    runs: int,
    make: Callable[[random.Random], Disturb],
    program: Train = train,
) -> Figures:
    """Disturb so many runs until each is done.

    SIGTERM must lose no step, SIGKILL no more than those since the last save that was known to be complete.
    """
    begun = time.monotonic()
    calm = live(context, directory / "calm", None, program)
    assert calm.code == 0, talk_of(directory / "calm").read_text()
    expected = newest(directory / "calm")
    chance = random.Random(runs)
    disturbed = in_save = unresumable = divergent = lost_too_much = lost_steps = 0
    for run in range(runs):
        train_url = directory / f"run-{run}"
        before = Life(None)
        for number in range(MAX_LIVES):
            life = live(context, train_url, make(chance) if number < MAX_LIVES // 2 else None, program)
            if life.resumed is not None:
                lost_steps += max(0, before.done - life.resumed)
                lost_too_much += life.resumed < before.saved
                lost_too_much += before.code == LEFT and life.resumed < before.done
            if life.code == 0:
                break
            if life.code not in (-signal.SIGKILL, -signal.SIGTERM, LEFT):
                unresumable += 1
                sys.stderr.write(talk_of(train_url).read_text())
            disturbed += 1
            in_save += life.in_save
            step, _ = newest(train_url)
            lost_too_much += step < life.saved
            # A life that was ended before it had resumed has done nothing.
            before = life if life.resumed is not None else before
        else:
            unresumable += 1
        divergent += newest(train_url) != expected
        shutil.rmtree(train_url)
        talk_of(train_url).unlink(missing_ok=True)
    return Figures(
        runs, disturbed, in_save, unresumable, divergent, lost_too_much, lost_steps, time.monotonic() - begun
    )
