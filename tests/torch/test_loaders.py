"""Loaders that claim more than they can do, and loops that use them in unforeseen ways."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer
from tests.torch.tiny import BATCH, BATCHES, EPOCHS, STEPS, Loader, Samples


class Pretender:
    """A wrapper with the methods of a stateful loader, around one that may not be stateful, as Accelerate has it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.loader

    def __len__(self) -> int:
        return BATCHES

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def state_dict(self) -> Any:
        return self.loader_state

    def load_state_dict(self, state: Any) -> None:
        raise NotImplementedError


class Nothing(Pretender):
    """The same, which says so by None."""

    def state_dict(self) -> Any:
        return None


class Inexpressible(Pretender):
    """A loader whose state no file of ours can hold."""

    def state_dict(self) -> Any:
        return {"iterator": object()}


def seen(directory: Path, loader: Loader, stop: int | None = None) -> list[Any]:
    """Return the batches from where the last run stopped to the end, or to a kill after a step."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    ckpt = Checkpointer(directory, {}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    batches = []
    for _ in ckpt.epochs(EPOCHS):
        for batch in ckpt.batches(loader):
            batches.append(batch.tolist())
            ckpt.step()
            if ckpt.global_step == stop:
                ckpt.wait()
                return batches
    ckpt.close()
    return batches


@pytest.mark.parametrize("kind", [Pretender, Nothing, Inexpressible])
def test_a_state_dict_that_cannot_be_had_is_none(tmp_path: Path, kind: type[Pretender]) -> None:
    def make() -> Loader:
        return kind(DataLoader(Samples(), BATCH, shuffle=True))

    whole = seen(tmp_path / "whole", make())
    assert len(whole) == STEPS
    for stop in range(1, STEPS):
        directory = tmp_path / str(stop)
        assert [*seen(directory, make(), stop), *seen(directory, make())] == whole


def test_a_state_that_the_loader_refuses_is_a_mismatch(tmp_path: Path) -> None:
    class Refusing(Pretender):
        def state_dict(self) -> Any:
            return {"place": 1}

    def make() -> Loader:
        return Refusing(DataLoader(Samples(), BATCH))

    seen(tmp_path, make(), stop=1)
    with pytest.raises(MismatchError, match=r"load_state_dict\(\).*NotImplementedError"):
        seen(tmp_path, make())


def test_an_epoch_of_batches_without_a_step_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(3):
        for _ in ckpt.batches(range(5)):
            pass
        ckpt.end_epoch()
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert all(word in errors[0] for word in ("epoch 0", "5 batches", "step()"))


def test_epochs_with_steps_or_without_batches_are_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    for epoch in ckpt.epochs(3):
        for number, _ in enumerate(ckpt.batches(range(4 if epoch else 0))):
            if number % 2:
                ckpt.step()
        if epoch == 1:
            ckpt.end_epoch()
            break
    again = Checkpointer(tmp_path, {})
    again.resume(quiet=True)
    assert list(again.epochs(3)) == [2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_loop_that_takes_the_next_batch_before_the_step_is_told_once(
    tmp_path: Path, ahead: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = Checkpointer(tmp_path, {}, save_interval_epochs=None)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(2):
        iterator = ckpt.batches(range(12))
        list(itertools.islice(iterator, ahead))
        for _ in iterator:
            ckpt.step()
    ckpt.close()
    assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == [
        " step() called after the next batch was taken"
    ]


@pytest.mark.parametrize(("every", "batches"), [(1, 12), (2, 12), (3, 13), (2, 3), (4, 5)])
def test_loops_that_accumulate_are_not_told(
    tmp_path: Path, every: int, batches: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = Checkpointer(tmp_path, {}, save_interval_epochs=None)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(2):
        for number in ckpt.batches(range(batches)):
            if number % every == every - 1 or number == batches - 1:
                ckpt.step()
    ckpt.close()
    assert capsys.readouterr().err == ""
