"""Signals, deadlines and hangs: real processes that are told to leave, or that are stuck."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch

import ckptfmt
from ckptfmt.torch import Checkpointer
from tests.torch.tiny import final_state

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to be caught")

LEFT = 75
STEPS = 40


def train(train_url: Path, told: Connection | None = None, seconds: float = 0.01) -> None:
    """Train with saves at epoch ends only, telling each step that is begun and done."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(net.parameters())
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer})
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(2):
        for number in ckpt.batches(range(STEPS // 2)):
            if told is not None:
                told.send(ckpt.global_step + 1)
            time.sleep(seconds)
            optimizer.zero_grad()
            net(torch.full((2, 3), float(number))).sum().backward()
            optimizer.step()
            ckpt.step()


def train_until_told(
    context: ForkServerContext, train_url: Path, signals: list[signal.Signals], step: int, delay: float
) -> tuple[int | None, int]:
    """Train in a process that gets the signals in a step; return its exit code and the last step it began."""
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(train_url, there))
    process.start()
    there.close()
    begun = 0
    told = False
    try:
        while True:
            begun = here.recv()
            if begun >= step and not told:  # the process before may have come further than it was to
                told = True
                time.sleep(delay)
                for number in signals:
                    assert process.pid is not None
                    os.kill(process.pid, number)
    except EOFError:
        pass
    process.join()
    return process.exitcode, begun


def newest_step(train_url: Path) -> int:
    steps = [0]
    for path in train_url.glob("*.ckptfmt"):
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.verify() == ()
            steps.append(checkpoint.metadata.step or 0)
    return max(steps)


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGUSR1], [signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1]],
    ids=["TERM", "USR1", "several"],
)
def test_a_signal_loses_no_step(tmp_path: Path, context: ForkServerContext, signals: list[signal.Signals]) -> None:
    train_url = tmp_path / "left"
    for step in (1, 7, 20, 21, 33):
        code, begun = train_until_told(context, train_url, signals, step, random.uniform(0, 0.015))
        assert code == LEFT
        assert newest_step(train_url) == begun  # the step that was under way was finished and saved
    train(train_url, seconds=0)
    train(tmp_path / "calm", seconds=0)
    assert final_state(train_url) == final_state(tmp_path / "calm")


def leave_before_the_deadline(train_url: Path, left: float) -> None:
    os.environ["SLURM_JOB_END_TIME"] = str(int(time.time() + left))
    train(train_url, seconds=0)


def test_the_deadline_of_slurm(tmp_path: Path, context: ForkServerContext) -> None:
    process = context.Process(target=leave_before_the_deadline, args=(tmp_path / "soon", 20))
    process.start()
    process.join()
    assert (process.exitcode, newest_step(tmp_path / "soon")) == (LEFT, 1)
    process = context.Process(target=leave_before_the_deadline, args=(tmp_path / "later", 2000))
    process.start()
    process.join()
    assert (process.exitcode, newest_step(tmp_path / "later")) == (0, STEPS)


def be_stuck(train_url: Path, errors: Path, in_step: bool) -> None:
    with errors.open("w") as file:
        os.dup2(file.fileno(), 2)
    ckpt = Checkpointer(train_url, {}, hang_timeout=2.0)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for number in ckpt.batches([1, 2, 3]):
            time.sleep(0.8)  # each is quick enough, all together are not
            if in_step and number == 3:
                time.sleep(60)
            ckpt.step()
    time.sleep(2.5)  # after the loop nobody waits for steps


def test_a_run_that_is_stuck_ends_with_all_stacks(tmp_path: Path, context: ForkServerContext) -> None:
    process = context.Process(target=be_stuck, args=(tmp_path, tmp_path / "errors", True))
    process.start()
    process.join(30)
    assert process.exitcode == 1
    told = (tmp_path / "errors").read_text()
    assert "Timeout" in told
    assert "be_stuck" in told


def test_a_run_that_goes_on_is_not_ended(tmp_path: Path, context: ForkServerContext) -> None:
    process = context.Process(target=be_stuck, args=(tmp_path, tmp_path / "errors", False))
    process.start()
    process.join(30)
    assert process.exitcode == 0


def save_and_end(train_url: Path, how: str) -> None:
    ckpt = Checkpointer(train_url, {"big": torch.nn.Linear(2000, 2000)}, codec="zstd")
    ckpt.resume(quiet=True)
    ckpt.save()
    if how == "exception":
        sys.stderr = None  # nobody needs to see it
        raise RuntimeError("the script fails")
    if how == "exit":
        raise SystemExit(3)


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("exception", 1), ("exit", 3)])
def test_the_end_of_the_process_waits_for_the_save(
    tmp_path: Path, context: ForkServerContext, how: str, code: int
) -> None:
    process = context.Process(target=save_and_end, args=(tmp_path, how))
    process.start()
    process.join(60)
    assert process.exitcode == code
    (saved,) = tmp_path.glob("*.ckptfmt")
    with ckptfmt.open(saved) as checkpoint:
        assert checkpoint.verify() == ()


def test_the_handlers_are_given_back(tmp_path: Path) -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        ckpt = Checkpointer(tmp_path, {})
        ckpt.resume(quiet=True)
        assert signal.getsignal(signal.SIGUSR1) is not mine
        for _ in ckpt.epochs(1):
            pass
        assert signal.getsignal(signal.SIGUSR1) is mine
    finally:
        signal.signal(signal.SIGUSR1, before)
