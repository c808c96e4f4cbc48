"""A training run of a fraction of a second that can be killed at any point and started again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

import ckptfmt
from ckptfmt.torch import Checkpointer

SAMPLES = 7
BATCH = 4
BATCHES = 2
EPOCHS = 3
STEPS = BATCHES * EPOCHS

Loader = Iterable[torch.Tensor]


class Killed(Exception):  # noqa: N818 - it is no error
    """The end of a run that the test wants."""


class Samples(Dataset[torch.Tensor]):
    """Samples that tell their number, with random noise of every generator on top."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = random.random() + float(np.random.rand()) + torch.rand(()).item()
        return torch.tensor([float(index), noise, noise * index])


class Stream(IterableDataset[torch.Tensor]):
    """The same without numbers to ask for, and without a length."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        samples = Samples()
        return (samples[index] for index in torch.randperm(SAMPLES).tolist())


def shuffled() -> Loader:
    """Return a loader that shuffles with the global generator."""
    return DataLoader(Samples(), BATCH, shuffle=True)


def with_generator() -> Loader:
    """Return a loader with a generator of its own."""
    return DataLoader(Samples(), BATCH, shuffle=True, generator=torch.Generator().manual_seed(5))


def with_sampler() -> Loader:
    """Return a loader whose sampler has a generator of its own, and draws from it as it goes along."""
    sampler = RandomSampler(Samples(), True, num_samples=SAMPLES, generator=torch.Generator().manual_seed(6))
    return DataLoader(Samples(), BATCH, sampler=sampler)


def streamed() -> Loader:
    """Return a loader of a stream."""
    return DataLoader(Stream(), BATCH)


def in_memory() -> Loader:
    """Return batches that are no loader's."""
    return list(torch.split(torch.arange(SAMPLES * 3.0).view(SAMPLES, 3), BATCH))


def with_workers() -> Loader:
    """Return a loader with two worker processes."""
    return DataLoader(Samples(), BATCH, shuffle=True, num_workers=2)


LOADERS = {make.__name__: make for make in (shuffled, with_generator, with_sampler, streamed, in_memory)}


class Log:
    """Everything that the loop saw."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {"lines": list(self.lines)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lines = list(state["lines"])


class Point(NamedTuple):
    """A point at which a run may be killed."""

    event: str
    number: int


POINTS = [
    *(Point(event, step) for step in range(1, STEPS + 1) for event in ("before step", "after step")),
    *(Point(event, epoch) for epoch in range(EPOCHS) for event in ("epoch begun", "batches over", "epoch ended")),
]
"""Every point of a run, `step` counted from 1."""


def run(
    train_url: Path,
    make_loader: Callable[[], Loader] = shuffled,
    *,
    kill: Point | None = None,
    interval: int | None = 1,
) -> Log:
    """Train from where the last run stopped to the end, or to the point of the kill."""

    def at(event: str, number: int) -> None:
        if kill == (event, number):
            raise Killed

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    loader = make_loader()
    log = Log()
    ckpt = Checkpointer(
        train_url, save_interval_steps=interval, net=net, optimizer=optimizer, scheduler=scheduler, log=log
    )
    ckpt.resume(quiet=True)
    for epoch in ckpt.epochs(EPOCHS):
        at("epoch begun", epoch)
        scale = random.random()
        for batch in ckpt.batches(loader):
            optimizer.zero_grad()
            loss = net(batch).mean() * scale
            loss.backward()
            optimizer.step()
            log.lines.append((epoch, ckpt.global_step, loss.item(), batch.tolist()))
            at("before step", ckpt.global_step + 1)
            ckpt.step(loss=loss)
            at("after step", ckpt.global_step)
        at("batches over", epoch)
        scheduler.step()
        net(torch.rand(5, 3))
        ckpt.end_epoch(noise=random.random())
        at("epoch ended", epoch)
    return log


def final_state(train_url: Path) -> dict[str, str]:
    """Return the identity of every component of the last checkpoint, verified."""
    found = []
    for path in train_url.glob("*.ckptfmt"):
        with ckptfmt.open(path) as checkpoint:
            found.append((checkpoint.metadata.step, checkpoint.metadata.epoch, path))
    with ckptfmt.open(max(found)[-1]) as checkpoint:
        checkpoint.load()
        return {name: part.identity for name, part in checkpoint.items()}
