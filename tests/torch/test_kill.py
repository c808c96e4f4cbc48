"""SIGKILL at any instant, again and again: the run still ends bit-identical, and no good checkpoint is lost."""

from __future__ import annotations

import random
import sys
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

import ckptfmt
from tests.torch.tiny import LOADERS, final_state, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

MAX_SECONDS = 0.12  # of life per process: a fraction of what the run takes
MAX_KILLS = 12


def train(train_url: Path, loader: str, started: Event | None = None) -> None:
    torch.set_num_threads(1)
    if started is not None:
        started.set()
    run(train_url, LOADERS[loader])


def newest_step(train_url: Path) -> int:
    """Return the step of the newest checkpoint; every one that is there can be read to its last byte."""
    steps = [0]
    for path in train_url.glob("*.ckptfmt"):
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.verify() == ()
            steps.append(checkpoint.metadata.step or 0)
    return max(steps)


def train_and_kill(context: ForkServerContext, train_url: Path, loader: str) -> int | None:
    """Train in a process that is killed after a random time; return its exit code."""
    started = context.Event()
    process = context.Process(target=train, args=(train_url, loader, started))
    process.start()
    started.wait()
    time.sleep(random.uniform(0, MAX_SECONDS))
    process.kill()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("loader", ["shuffled", "with_generator"] * 2)
def test_kills_at_random_instants_change_nothing(tmp_path: Path, context: ForkServerContext, loader: str) -> None:
    train_url = tmp_path / "killed"
    newest = 0
    for _ in range(MAX_KILLS):
        if train_and_kill(context, train_url, loader) == 0:
            break  # it came to its end
        assert newest_step(train_url) >= newest
        newest = newest_step(train_url)
    train(train_url, loader)
    train(tmp_path / "calm", loader)
    assert final_state(train_url) == final_state(tmp_path / "calm")
