"""Saves in the background: what is in them, what happens to those that fail, and how many there are at once."""

from __future__ import annotations

import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt.errors import StateError, StorageError
from ckptfmt.torch import Checkpointer, SaveWarning

SIZE = 1_000_000


class State:
    """A component with tensors and values of all kinds, each showing the number of the moment."""

    def __init__(self) -> None:
        self.dense = torch.zeros(SIZE)
        self.turned = torch.zeros(1000, 100).T
        self.odd = torch.zeros(3, dtype=torch.uint8)
        self.complex = torch.zeros(5, dtype=torch.complex128)
        self.array = np.zeros(SIZE // 10)
        self.values: dict[str, Any] = {"list": [0], "nested": {"deep": 0}}

    def set(self, number: int) -> None:
        for part in (self.dense, self.turned, self.odd, self.complex):
            part.fill_(number)
        self.array[:] = number
        self.values["list"][0] = number
        self.values["nested"]["deep"] = number

    def state_dict(self) -> dict[str, Any]:
        return vars(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def numbers_in(path: str) -> set[float]:
    """Return every number that the state in a file shows; one, if it is of one moment."""
    state = ckptfmt.torch.load(path)["state"]
    found = set(np.unique(state["array"]).tolist()) | {state["values"]["list"][0], state["values"]["nested"]["deep"]}
    for name in ("dense", "turned", "odd"):
        found |= set(state[name].unique().tolist())
    return found | {value.real for value in state["complex"].tolist()}


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_what_is_saved_is_the_state_of_one_moment(tmp_path: Path, codec: str) -> None:
    state = State()
    ckpt = Checkpointer(tmp_path, state=state, codec=codec)
    ckpt.resume(quiet=True)
    for number in range(1, 6):
        state.set(number)
        ckpt.save()
        state.set(100 + number)  # while it is being written
        report = ckpt.wait()
        assert report is not None
        assert numbers_in(report.path) == {number}


def test_the_memory_of_the_copy_is_used_again(tmp_path: Path) -> None:
    state = State()
    ckpt = Checkpointer(tmp_path, state=state)
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.wait()
    staged = ckpt._saves._staging._memory.data_ptr()
    for _ in range(3):
        ckpt.save()
    ckpt.wait()
    assert ckpt._saves._staging._memory.data_ptr() == staged


def train(ckpt: Checkpointer, steps: int) -> None:
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(steps)):
            ckpt.step()


def steps_saved(train_url: Path) -> set[int | None]:
    found = set()
    for path in train_url.glob("*.ckptfmt"):
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.verify() == ()
            found.add(checkpoint.metadata.step)
    return found


def test_a_save_that_is_due_waits_for_the_one_before(tmp_path: Path) -> None:
    train(Checkpointer(tmp_path, save_interval_steps=1, state=State(), codec="zstd"), 5)
    assert steps_saved(tmp_path) == {1, 2, 3, 4, 5}


def test_or_is_skipped_if_so_wanted(tmp_path: Path) -> None:
    train(Checkpointer(tmp_path, save_interval_steps=1, state=State(), codec="zstd", when_busy="skip"), 20)
    saved = steps_saved(tmp_path)
    assert {1, 20} <= saved  # the end of the epoch waits
    assert len(saved) < 20


def test_one_thread_at_most_is_saving(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, state=State(), codec="zstd")
    ckpt.resume(quiet=True)
    for _ in range(4):
        ckpt.save()
        assert sum(thread.name.startswith("ckptfmt-save") for thread in threading.enumerate()) <= 1
    ckpt.wait()


@pytest.mark.parametrize("background", [True, False])
def test_a_failed_save_is_told_and_training_goes_on(tmp_path: Path, background: bool) -> None:
    train_url = tmp_path / "runs"
    ckpt = Checkpointer(train_url, save_interval_steps=1, state=State(), background=background)
    ckpt.resume(quiet=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in ckpt.epochs(1):
            for number in ckpt.batches(range(4)):
                if number == 1:
                    ckpt.wait()
                    shutil.rmtree(train_url)
                if number == 3:
                    ckpt.wait()
                    train_url.mkdir()
                ckpt.step()
    told = [warning for warning in caught if warning.category is SaveWarning]
    assert len(told) == 2
    assert "SAVE FAILED at step 2" in str(told[0].message)
    assert "the last good one is" in str(told[0].message)
    assert all(warning.filename == __file__ for warning in told)
    assert steps_saved(train_url) == {4}


def steps(ckpt: Checkpointer) -> None:
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(3)):
            ckpt.step()
            ckpt.wait()


@pytest.mark.parametrize("background", [True, False])
def test_a_failed_save_stops_training_if_so_wanted(tmp_path: Path, background: bool) -> None:
    train_url = tmp_path / "runs"
    ckpt = Checkpointer(train_url, save_interval_steps=1, background=background, on_failed_save="raise")
    ckpt.resume(quiet=True)
    shutil.rmtree(train_url)
    with pytest.raises(StorageError):
        steps(ckpt)
    assert ckpt.global_step == 1
    ckpt.close()


def test_what_cannot_be_expressed_is_an_error_at_once(tmp_path: Path) -> None:
    state = State()
    state.values["bad"] = object()
    ckpt = Checkpointer(tmp_path, state=state)
    ckpt.resume(quiet=True)
    with pytest.raises(StateError, match=r"state\.values\.bad"):
        ckpt.save()
    assert not list(tmp_path.iterdir())


class Failing:
    """A net whose forward pass fails, before or after it has changed anything."""

    def __init__(self) -> None:
        self.weight = torch.ones(3)
        self.seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight, self.seen = state["weight"], state["seen"]


def fail_in_step_4(train_url: Path, change: str, drawn: list[float]) -> None:
    net = Failing()
    with Checkpointer(train_url, save_on_exception=True, save_interval_epochs=None, net=net) as ckpt:
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(1):
            for number in ckpt.batches(range(5)):
                drawn.append(torch.rand(()).item())
                if number == 3:
                    if change == "tensor":
                        net.weight.add_(1)
                    if change == "value":
                        net.seen += 1
                    raise ZeroDivisionError
                net.weight.mul_(2)
                net.seen += 1
                ckpt.step()


def fail_after_a_step(train_url: Path) -> None:
    with Checkpointer(train_url, save_interval_epochs=None) as ckpt:
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(1):
            for _ in ckpt.batches(range(5)):
                ckpt.step()
                raise ZeroDivisionError


@pytest.mark.parametrize("change", ["none", "tensor", "value"])
def test_an_exception_saves_the_last_step_if_it_is_still_there(tmp_path: Path, change: str) -> None:
    drawn: list[float] = []
    with pytest.raises(ZeroDivisionError):
        fail_in_step_4(tmp_path, change, drawn)
    if change != "none":
        assert not list(tmp_path.iterdir())
        return
    assert steps_saved(tmp_path) == {3}
    again = Failing()
    ckpt = Checkpointer(tmp_path, net=again)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for number in ckpt.batches(range(5)):
            assert number == 3
            assert again.seen == 3
            assert again.weight.tolist() == [8.0] * 3
            assert torch.rand(()).item() == drawn[3]
            break
        break
    ckpt.close()


def test_without_being_asked_nothing_is_saved_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after_a_step(tmp_path)
    assert not list(tmp_path.iterdir())
