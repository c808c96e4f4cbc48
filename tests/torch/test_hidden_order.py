"""What an order follows from is found where it is hidden: in slots, classes, closures, globals and iterators."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from ckptfmt.torch import Checkpointer
from tests.torch.test_data_order import SAMPLES, Counting, Noisy, Quiet, assert_exact, order, seen

STOPS = [(1, False), (4, False), (5, False), (0, True), (1, True)]
COUNT = {"passes": 0}
GENERATOR = torch.Generator()


class Slots:
    __slots__ = ("passes",)

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter(order(self.passes))


class Rotating(Counting):
    def __init__(self, size: int) -> None:
        self.order = deque(range(size))

    def __iter__(self) -> Iterator[int]:
        self.order.rotate(1)
        return iter([number % SAMPLES for number in self.order][:SAMPLES])


class Growing(Counting):
    def __init__(self) -> None:
        self.passes = set[int]()

    def __iter__(self) -> Iterator[int]:
        self.passes.add(len(self.passes))
        return iter(order(len(self.passes)))


class Global(Counting):
    def __iter__(self) -> Iterator[int]:
        COUNT["passes"] += 1
        return iter(order(COUNT["passes"]))


class Counts(Counting):
    def __init__(self) -> None:
        self.passes = itertools.count()

    def __iter__(self) -> Iterator[int]:
        return iter(order(next(self.passes)))


class Numbers(IterableDataset[int]):
    def __init__(self) -> None:
        self.numbers = iter(range(1000))

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.numbers, SAMPLES)


def of_a_class() -> Any:
    class OfTheClass(Counting):
        passes = 0

        def __init__(self) -> None:
            pass

        def __iter__(self) -> Iterator[int]:
            OfTheClass.passes += 1
            return iter(order(OfTheClass.passes))

    return DataLoader(Noisy(), 4, sampler=OfTheClass())


def default_of_a_sampler() -> Any:
    class Default(Counting):
        epoch = 0

        def __init__(self) -> None:
            pass

    return DataLoader(Noisy(), 4, sampler=Default())


def default_of_a_batch_sampler() -> Any:
    class Default:
        passes = 0

        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[list[int]]:
            self.passes += 1
            return iter(torch.tensor(order(self.passes)).view(3, 4).tolist())

    return DataLoader(Noisy(), batch_sampler=Default())


def default_of_a_stream() -> Any:
    class Default(IterableDataset[int]):
        passes = 0

        def __iter__(self) -> Iterator[int]:
            self.passes += 1
            return iter(order(self.passes))

    return DataLoader(Default(), 4)


def default_of_a_data_set() -> Any:
    class Default(Quiet):
        reads = 0

        def __getitem__(self, index: int) -> torch.Tensor:
            self.reads += 1
            return super().__getitem__(index) + self.reads

    return DataLoader(Default(), 4, shuffle=True)


def default_of_a_collate_function() -> Any:
    class Default:
        calls = 0

        def __call__(self, batch: list[torch.Tensor]) -> torch.Tensor:
            self.calls += 1
            return torch.stack(batch) + self.calls

    return DataLoader(Quiet(), 4, shuffle=True, collate_fn=Default())


def default_of_a_loader() -> Any:
    class Default:
        passes = 0

        def __iter__(self) -> Iterator[torch.Tensor]:
            self.passes += 1
            yield from torch.tensor(order(self.passes)).view(3, 4)

    class Around:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __iter__(self) -> Iterator[torch.Tensor]:
            yield from self.inner

    return Around(Around(Default()))


def in_a_closure() -> Any:
    passes = 0

    class Closure(Counting):
        def __iter__(self) -> Iterator[int]:
            nonlocal passes
            passes += 1
            return iter(order(passes))

    return DataLoader(Noisy(), 4, sampler=Closure())


def collated(generator: torch.Generator, batch: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(batch) + torch.rand((), generator=generator)


def generator_in_a_closure() -> Any:
    generator = torch.Generator().manual_seed(1)
    return DataLoader(Quiet(), 4, shuffle=True, collate_fn=lambda batch: collated(generator, batch))


def generator_in_a_global() -> Any:
    GENERATOR.manual_seed(1)
    return DataLoader(Quiet(), 4, shuffle=True, collate_fn=lambda batch: collated(GENERATOR, batch))


def generator_in_a_default() -> Any:
    def collate(batch: list[torch.Tensor], generator: torch.Generator = torch.Generator().manual_seed(1)) -> Any:  # noqa: B008 - kept between calls: that is the point
        return collated(generator, batch)

    return DataLoader(Quiet(), 4, shuffle=True, collate_fn=collate)


def with_global_count() -> Any:
    COUNT["passes"] = 0
    return DataLoader(Noisy(), 4, sampler=Global())


HIDDEN: dict[str, Callable[[], Any]] = {
    "slots": lambda: DataLoader(Noisy(), 4, sampler=Slots()),
    "deque": lambda: DataLoader(Noisy(), 4, sampler=Rotating(SAMPLES)),
    "long deque": lambda: DataLoader(Noisy(), 4, sampler=Rotating(20 * SAMPLES)),
    "set": lambda: DataLoader(Noisy(), 4, sampler=Growing()),
    "count": lambda: DataLoader(Noisy(), 4, sampler=Counts()),
    "iterator over a range": lambda: DataLoader(Numbers(), 4),
    "class": of_a_class,
    "class default, sampler": default_of_a_sampler,
    "class default, batch sampler": default_of_a_batch_sampler,
    "class default, stream": default_of_a_stream,
    "class default, data set": default_of_a_data_set,
    "class default, collate function": default_of_a_collate_function,
    "class default, loader": default_of_a_loader,
    "closure": in_a_closure,
    "global": with_global_count,
    "generator in a closure": generator_in_a_closure,
    "generator in a global": generator_in_a_global,
    "generator in a default": generator_in_a_default,
    "generator in a partial": lambda: DataLoader(
        Quiet(), 4, shuffle=True, collate_fn=partial(collated, torch.Generator().manual_seed(1))
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_state_comes_back(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_exact(tmp_path, HIDDEN[name], STOPS)
    assert capsys.readouterr().err == ""


def goes_on() -> Any:
    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    made = numbers()

    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return itertools.islice(made, SAMPLES)

    return DataLoader(Stream(), 4)


def test_a_generator_function_that_goes_on_from_pass_to_pass_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen(tmp_path, goes_on, (0, True))
    assert capsys.readouterr().err == ""
    seen(tmp_path, goes_on)
    assert "dataset(made)" in capsys.readouterr().err


def test_what_code_uses_beside_the_loader_is_left_alone(tmp_path: Path) -> None:
    class Trainer:
        """Its method makes the batches; what else it keeps is not the loader's."""

        def __init__(self) -> None:
            self.started = 0
            self.generator = torch.Generator().manual_seed(1)

        def collate(self, batch: list[torch.Tensor]) -> torch.Tensor:
            return collated(self.generator, batch)

        def run(self, directory: Path, stop: int) -> list[Any]:
            data: DataLoader[Any] = DataLoader(Quiet(), 4, collate_fn=lambda batch: self.collate(batch))
            ckpt = Checkpointer(directory, {}, save_interval_steps=1, signals=())
            ckpt.resume(quiet=True)
            batches = []
            for _ in ckpt.epochs(2):
                for batch in ckpt.batches(data):
                    self.started += 1
                    batches.append(batch.tolist())
                    ckpt.step()
                    if ckpt.global_step == stop:
                        ckpt.close()
                        return batches
                ckpt.end_epoch()
            return batches

    second = Trainer()
    parts = [*Trainer().run(tmp_path / "parts", 4), *second.run(tmp_path / "parts", 9)]
    assert parts == Trainer().run(tmp_path / "whole", 9)
    assert second.started == 2
