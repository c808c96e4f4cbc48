"""Loops that count steps and accumulate gradients, on several ranks."""

from __future__ import annotations

import os
import random
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from ckptfmt.torch import Checkpointer
from tests.torch.job import RANKS, run_job
from tests.torch.tiny import final_state

STEPS = 8


def train(rank: int, directory: Path, leave: int | None, odd_rank: int | None) -> int:
    """Train with two micro-batches for each optimizer step; on one rank perhaps with three."""
    random.seed(rank)
    np.random.seed(rank)
    torch.manual_seed(rank)
    net = DistributedDataParallel(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.3), nn.Linear(3, 1)))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    data: Any = torch.arange(24.0).view(12, 2) / 24
    sampler: Any = DistributedSampler(data, RANKS, rank)
    ckpt = Checkpointer(directory, {"net": net, "optimizer": optimizer}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    batches = ckpt.cycle(DataLoader(data, 2, sampler=sampler), set_epoch=sampler.set_epoch)
    for step in ckpt.steps(STEPS):
        if step == leave and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        (net(next(batches)) ** 2).mean().backward()
        if step % (3 if rank == odd_rank else 2) == 1:
            optimizer.step()
            optimizer.zero_grad()
    return ckpt.global_step


@pytest.mark.parametrize("leave", [2, 5])
def test_a_signal_to_one_rank_waits_for_the_optimizer_step(
    tmp_path: Path, context: ForkServerContext, leave: int
) -> None:
    left = run_job(context, tmp_path / "job", train, tmp_path / "run", leave, None)
    assert [it.error for it in left] == ["SystemExit"] * RANKS
    for directory in ("run", "calm"):
        ended = run_job(context, tmp_path / "job", train, tmp_path / directory, None, None)
        assert [it.value for it in ended] == [STEPS] * RANKS
    assert final_state(tmp_path / "run") == final_state(tmp_path / "calm")


def test_ranks_that_accumulate_at_different_times_are_refused(tmp_path: Path, context: ForkServerContext) -> None:
    ended = run_job(context, tmp_path / "job", train, tmp_path / "run", None, 1)
    assert [it.error for it in ended] == ["UsageError"] * RANKS
