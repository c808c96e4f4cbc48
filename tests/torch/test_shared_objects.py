"""A pass may make an attribute refer to another object that exists already; a resume does the same, and harms none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Sampler

from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer

SAMPLES = 12
EPOCHS = 4


def order(seed: int) -> list[int]:
    numbers: list[int] = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(seed)).tolist()
    return numbers


class Plan:
    def __init__(self, seed: int) -> None:
        self.seed = seed


ORDERS = [order(seed) for seed in range(5)]
PLANS = [Plan(seed) for seed in range(5)]
SEEDED: list[torch.Generator] = []


class Named:
    first = Plan(1)
    second = Plan(2)
    third = Plan(3)


class InTurns(Sampler[int]):
    """Begins with one of several objects, and takes the next one in each pass."""

    def __init__(self) -> None:
        self.now = self.all()[0]

    def all(self) -> Any:
        raise NotImplementedError

    def order(self) -> list[int]:
        return order(self.now.seed)

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        numbers = self.order()
        others = self.all()
        index = next(index for index, other in enumerate(others) if other is self.now)
        self.now = others[(index + 1) % len(others)]
        return iter(numbers)


class GlobalLists(InTurns):
    def all(self) -> Any:
        return ORDERS

    def order(self) -> list[int]:
        return list(self.now)


class GlobalObjects(InTurns):
    def all(self) -> Any:
        return PLANS


class ClassAttributes(InTurns):
    def all(self) -> Any:
        return [Named.first, Named.second, Named.third]


class Generators(InTurns):
    def all(self) -> Any:
        return SEEDED

    def order(self) -> list[int]:
        numbers: list[int] = torch.randperm(SAMPLES, generator=self.now).tolist()
        return numbers


class OwnLists(GlobalLists):
    def __init__(self) -> None:
        self.lists = [order(seed) for seed in range(5)]
        super().__init__()

    def all(self) -> Any:
        return self.lists


class OwnObjects(InTurns):
    def __init__(self) -> None:
        self.plans = [Plan(seed) for seed in range(5)]
        super().__init__()

    def all(self) -> Any:
        return self.plans


class Anew(GlobalObjects):
    """Begins with a shared object, and makes one of its own in each pass."""

    def __iter__(self) -> Iterator[int]:
        numbers = self.order()
        self.now = Plan(self.now.seed + 1)
        return iter(numbers)


class ListAnew(GlobalLists):
    def __iter__(self) -> Iterator[int]:
        self.now = [self.now[-1], *self.now[:-1]]
        return iter(self.now)


def train(directory: Path, kind: type[InTurns], stop: int | None = None) -> list[Any]:
    """Train to the end, to a step, or to the end of an epoch if the number is negative."""
    SEEDED[:] = [torch.Generator().manual_seed(seed) for seed in range(3)]
    shared = copy.deepcopy((ORDERS, PLANS, vars(Named)["first"], vars(Named)["second"], vars(Named)["third"]))
    samples: Any = torch.arange(float(SAMPLES))
    loader: DataLoader[Any] = DataLoader(samples, 4, sampler=kind())
    checkpointer = Checkpointer(directory, {}, save_interval_steps=1, background=False)
    checkpointer.resume(quiet=True)
    batches: list[Any] = []
    for epoch in checkpointer.epochs(EPOCHS):
        for batch in checkpointer.batches(loader):
            batches.append(batch.tolist())
            checkpointer.step()
            if stop == checkpointer.global_step:
                return batches
        checkpointer.end_epoch()
        if stop == -epoch - 1:
            break
    orders, plans, *named = shared
    assert orders == ORDERS
    assert [plan.seed for plan in plans] == [plan.seed for plan in PLANS]
    assert [plan.seed for plan in named] == [1, 2, 3]
    return batches


@pytest.mark.parametrize(
    "kind", [GlobalLists, GlobalObjects, ClassAttributes, Generators, OwnLists, OwnObjects, ListAnew]
)
@pytest.mark.parametrize("stop", [2, 4, 7, -1, -2, -3])
def test_the_reference_is_restored(tmp_path: Path, kind: type[InTurns], stop: int) -> None:
    whole = train(tmp_path / "whole", kind)
    assert train(tmp_path / "run", kind, stop) + train(tmp_path / "run", kind) == whole


@pytest.mark.parametrize("stop", [2, 4, -1, -2])
def test_an_object_of_its_own_in_the_place_of_a_shared_one_is_not_passed_over(
    tmp_path: Path, stop: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(tmp_path / "whole", Anew)
    train(tmp_path / "run", Anew, stop)
    if stop == 4:
        with pytest.raises(MismatchError):
            train(tmp_path / "run", Anew)
        return
    resumed = train(tmp_path / "run", Anew)
    assert resumed == whole[len(whole) - len(resumed) :] or "ckptfmt: loader: " in capsys.readouterr().err
