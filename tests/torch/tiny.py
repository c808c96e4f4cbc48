"""A training run of a fraction of a second that can be killed at any point and started again."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

import ckptfmt
from ckptfmt._core.runs.scan import scan
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


class Noisy(Samples):
    """Samples with noise of generators that are the data set's own."""

    def __init__(self) -> None:
        self.numpy = np.random.default_rng(3)
        self.parts = {"python": random.Random(4)}

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), float(self.numpy.normal()), self.parts["python"].random()])


def with_own_noise() -> Loader:
    """Return a loader of a data set with generators of its own."""
    return DataLoader(Noisy(), BATCH, shuffle=True)


class Places(IterableDataset[torch.Tensor]):
    """A stream that knows its own place and can be set to it."""

    def __init__(self) -> None:
        self.place = 0
        self.order: list[int] = []

    def __iter__(self) -> Iterator[torch.Tensor]:
        if self.place == 0:
            self.order = torch.randperm(SAMPLES).tolist()
        while self.place < SAMPLES:
            self.place += 1
            yield Samples()[self.order[self.place - 1]]
        self.place = 0

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place, self.order = state["place"], list(state["order"])


def _of_torchdata(dataset: Dataset[torch.Tensor], batch_size: int, **options: Any) -> Loader:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # it calls what PyTorch has deprecated
        loader: Loader = StatefulDataLoader(dataset, batch_size, **options)
    return loader


def stateful() -> Loader:
    """Return a loader of torchdata, which knows its place, with its own shuffling."""
    return _of_torchdata(Samples(), BATCH, shuffle=True)


def stateful_stream() -> Loader:
    """Return a loader of torchdata over a stream that knows its place."""
    return _of_torchdata(Places(), BATCH)


def stateful_fast_forward() -> Loader:
    """Return a loader of torchdata over a stream that does not know its place."""
    return _of_torchdata(Stream(), BATCH)


def stateful_with_workers() -> Loader:
    """Return a loader of torchdata with two worker processes."""
    return _of_torchdata(Samples(), BATCH, shuffle=True, num_workers=2)


class Chapters:
    """A loader of one's own that knows its place, and how often it was gone through."""

    def __init__(self) -> None:
        self.round = 0
        self.place = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.place < BATCHES:
            self.place += 1
            yield torch.rand(BATCH, 3) + self.round
        self.round += 1
        self.place = 0

    def state_dict(self) -> dict[str, int]:
        return {"round": self.round, "place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.round, self.place = state["round"], state["place"]


LOADERS = {
    make.__name__: make
    for make in (
        shuffled,
        with_generator,
        with_sampler,
        with_own_noise,
        streamed,
        in_memory,
        stateful,
        stateful_stream,
        stateful_fast_forward,
        Chapters,
    )
}


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
    train_url: str | Path,
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
        train_url,
        {"net": net, "optimizer": optimizer, "scheduler": scheduler, "log": log},
        save_interval_steps=interval,
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


def final_state(train_url: str | Path) -> dict[str, str]:
    """Return the identity of every component of the last checkpoint, verified."""
    found = [(file.metadata.step or 0, file.metadata.epoch or 0, file.path) for file in scan(train_url)]
    with ckptfmt.open(max(found)[-1]) as checkpoint:
        checkpoint.load()
        return {name: part.identity for name, part in checkpoint.items()}
