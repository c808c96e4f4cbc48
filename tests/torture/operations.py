"""A kill at each file operation of a run: of its saves, its retention and its resume, in whatever thread."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from ckptfmt.torch import Checkpointer
from tests.storage.disturbed_writer import operation_name
from tests.torture.training import closing, newest

STEPS = 4


class Countdown:
    """Kills the process before the n-th file operation from now on, in any thread of Python's.

    The interpreter reports every call of a function that is written in C; those of the operating system count. What
    matters of an operation is whether it has happened: just after one is the same as just before the next.
    """

    def __init__(self, when: int) -> None:
        self.left = when
        sys.addaudithook(self.on_audit)
        threading.setprofile(self.on_call)
        sys.setprofile(self.on_call)

    def on_audit(self, event: str, _: tuple[object, ...]) -> None:
        if event == "open":  # files opened by C code are reported as no call
            self.on_operation()

    def on_call(self, _: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and operation_name(function) is not None:
            self.on_operation()

    def on_operation(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def train(train_url: Path, when: int | None, told: Connection | None) -> None:
    """Train a few steps with a save at each, and only the last checkpoint kept."""
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    if when is not None:
        Countdown(when)
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer}, save_interval_steps=1, keep_last=1)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(STEPS)):
            optimizer.zero_grad()
            net(torch.rand(5, 3)).sum().backward()
            optimizer.step()
            ckpt.step()
            saved = ckpt.wait()
            if told is not None and saved is not None:
                told.send(ckpt.global_step)
    if told is not None:
        told.send(STEPS)


@dataclass(frozen=True)
class Figures:
    """What came of a kill at each of some operations.

    Attributes:
        operations: How many of them a run was killed at.
        failed: After which the run could not go on, lost more than a step, or ended otherwise than undisturbed.
    """

    operations: int
    failed: tuple[int, ...]


def kill_at(context: ForkServerContext, directory: Path, operations: Iterable[int]) -> Figures:
    """Kill a run at each of these operations, until there are no more; each run is then left alone to its end."""
    train(directory / "calm", None, None)
    expected = newest(directory / "calm")
    failed = []
    killed = 0
    for when in operations:
        train_url = directory / f"at-{when}"
        code, saved = _live(context, train_url, when)
        if code == 0:
            break
        killed += 1
        sound = code == -signal.SIGKILL and (not train_url.exists() or newest(train_url)[0] >= saved)
        # Of a run whose last save is published nothing is saved any more, so nothing is removed any more either.
        most = 2 if train_url.exists() and newest(train_url) == expected else 1
        code, _ = _live(context, train_url, None)
        rest = sorted(path.name for path in train_url.iterdir() if not path.name.endswith((".lock", ".lease")))
        if not sound or code != 0 or newest(train_url) != expected or not 1 <= len(rest) <= most:
            failed.append(when)
    return Figures(killed, tuple(failed))


def _live(context: ForkServerContext, train_url: Path, when: int | None) -> tuple[int | None, int]:
    """Return how a process ended, and the last step that it knew to be saved."""
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(train_url, when, there))
    process.start()
    there.close()
    saved = 0
    with closing(here):
        try:
            while True:
                saved = here.recv()
        except EOFError:
            pass
    process.join()
    return process.exitcode, saved
