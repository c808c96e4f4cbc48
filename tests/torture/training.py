"""The training run that is tortured: with saves in the background, retention, and a state that takes time to write."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import ckptfmt
from ckptfmt.torch import Checkpointer

EPOCHS = 3
SAMPLES = 30
BATCH = 4
STEPS = EPOCHS * -(-SAMPLES // BATCH)
INTERVAL = 3
STEP_SECONDS = 0.002


class Noisy(Dataset[torch.Tensor]):
    """Samples with noise of every generator."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = random.random() + float(np.random.rand()) + torch.rand(()).item()
        return torch.tensor([float(index), noise, noise * index])


class Ballast:
    """A megabyte or two that changes with each step, so that writing takes time and a mixed state shows."""

    def __init__(self) -> None:
        self.values = torch.zeros(300_000)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.values.copy_(state["values"])


class Losses:
    """The loss of every step."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {"lines": list(self.lines)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lines = list(state["lines"])


def train(train_url: Path, told: Connection | None = None) -> None:
    """Train to the end, telling where it goes on (`resumed`), each step `done`, and which one was `saved` last."""

    def tell(what: str, step: int) -> None:
        if told is not None:
            told.send((what, step))

    if told is not None:
        talk = os.open(talk_of(train_url), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(talk, 2)
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    ballast, losses = Ballast(), Losses()
    loader = DataLoader(Noisy(), BATCH, shuffle=True)
    ckpt = Checkpointer(
        train_url,
        {"net": net, "optimizer": optimizer, "scheduler": scheduler, "ballast": ballast, "losses": losses},
        save_interval_steps=INTERVAL,
        keep_last=2,
        keep_best=("loss", "min"),
    )
    tell("resumed", ckpt.resume(quiet=True).step)
    for _ in ckpt.epochs(EPOCHS):
        for batch in ckpt.batches(loader):
            optimizer.zero_grad()
            loss = net(batch).mean()
            loss.backward()
            optimizer.step()
            losses.lines.append(loss.item())
            ballast.values.add_(1).mul_(1.0 + loss.item() * 1e-3)
            time.sleep(STEP_SECONDS)
            ckpt.step(loss=loss)
            tell("done", ckpt.global_step)
            if ckpt.last_saved is not None:
                tell("saved", step_of(ckpt.last_saved.path))
        scheduler.step()
        ckpt.end_epoch(loss=losses.lines[-1])  # not `loss`: all batches may have been done before


def talk_of(train_url: Path) -> Path:
    """Return the file of what the processes of a run say on stderr."""
    return train_url.with_name(f"{train_url.name}.stderr")


def step_of(path: str | Path) -> int:
    """Return the step in the name that the Checkpointer gave."""
    return int(Path(path).stem.split("-")[1])


def newest(train_url: Path) -> tuple[int, dict[str, str]]:
    """Return the step of the newest checkpoint and the identities of its components; all that are there are sound."""
    found: list[tuple[int, int, dict[str, str]]] = []
    for path in train_url.glob("*.ckptfmt"):
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.verify() == (), path
            identities = {name: part.identity for name, part in checkpoint.items()}
            found.append((checkpoint.metadata.step or 0, checkpoint.metadata.epoch or 0, identities))
    if not found:
        return 0, {}
    step, _, identities = max(found, key=lambda it: it[:2])
    return step, identities


@contextmanager
def closing(connection: Connection) -> Iterator[Connection]:
    """Close a connection at the end."""
    try:
        yield connection
    finally:
        connection.close()
