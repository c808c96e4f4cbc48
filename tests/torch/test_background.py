"""Saves in the background: what is in them, what happens to those that fail, and how many there are at once."""

from __future__ import annotations

import errno
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt._core.container.planning import SavePlan
from ckptfmt._core.container.writer import SaveReport, write_plan
from ckptfmt._core.torch.saving import staging
from ckptfmt.errors import StateError, StorageError
from ckptfmt.torch import Checkpointer, SaveError
from tests.torch.directories import names

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
    ckpt = Checkpointer(tmp_path, {"state": state}, codec=codec)
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
    ckpt = Checkpointer(tmp_path, {"state": state})
    ckpt.resume(quiet=True)
    with mock.patch("ckptfmt._core.torch.saving.staging._allocate", wraps=staging._allocate) as allocate:
        for _ in range(4):
            ckpt.save()
    ckpt.wait()
    assert allocate.call_count == 1


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
    train(Checkpointer(tmp_path, {"state": State()}, save_interval_steps=1, codec="zstd"), 5)
    assert steps_saved(tmp_path) == {1, 2, 3, 4, 5}


def test_or_is_skipped_if_so_wanted(tmp_path: Path) -> None:
    train(Checkpointer(tmp_path, {"state": State()}, save_interval_steps=1, codec="zstd", when_busy="skip"), 20)
    saved = steps_saved(tmp_path)
    assert {1, 20} <= saved  # the end of the epoch waits
    assert len(saved) < 20


def test_one_thread_at_most_is_saving(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {"state": State()}, codec="zstd")
    ckpt.resume(quiet=True)
    for _ in range(4):
        ckpt.save()
        assert sum(thread.name.startswith("ckptfmt-save") for thread in threading.enumerate()) <= 1
    ckpt.wait()


@pytest.mark.parametrize("background", [True, False])
def test_a_failed_save_is_told_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    train_url = tmp_path / "runs"
    ckpt = Checkpointer(train_url, {"state": State()}, save_interval_steps=1, background=background)
    ckpt.resume(quiet=True)
    errors = []
    for _ in ckpt.epochs(1):
        for number in ckpt.batches(range(4)):
            if number == 1:
                ckpt.wait()
                shutil.rmtree(train_url)
                train_url.touch()  # or it would be made again
            if number == 3:
                ckpt.wait()
                train_url.unlink()
                train_url.mkdir()
            ckpt.step()
            ckpt.wait()
            errors.append(ckpt.last_error)
            assert ckpt.last_saved is not None
            assert Path(ckpt.last_saved.path).name == f"ckpt-0000000{4 if number == 3 else 1}-e0000.ckptfmt"
    assert [type(error) for error in errors] == [type(None), StorageError, StorageError, type(None)]
    *failed, _ = capsys.readouterr().err.splitlines()  # the last one reports that it is another directory now
    for line, step, lost in zip(failed, (2, 3), ("1 step", "2 steps"), strict=True):
        last = re.escape(f"{train_url}/ckpt-00000001-e0000.ckptfmt")
        assert re.match(rf"ckptfmt: .*FAILED.* step {step}\b.* {lost}\b.* \d+ s\b.*{last}", line)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING"]
    assert steps_saved(train_url) == {4}


def steps(ckpt: Checkpointer) -> None:
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(3)):
            ckpt.step()
            ckpt.wait()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("options", "ended_at"), [({"on_failed_save": "raise"}, 1), ({"max_failed_saves": 3}, 3)])
def test_failed_saves_end_the_training_if_so_wanted(
    tmp_path: Path, background: bool, options: dict[str, Any], ended_at: int
) -> None:
    train_url = tmp_path / "runs"
    ckpt = Checkpointer(train_url, {}, save_interval_steps=1, background=background, **options)
    ckpt.resume(quiet=True)
    shutil.rmtree(train_url)
    train_url.touch()
    with pytest.raises(StorageError):
        steps(ckpt)
    assert ckpt.global_step == ended_at
    ckpt.close()


def test_failed_saves_count_in_a_row_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def every_other(path: Path, plan: SavePlan, **options: Any) -> SaveReport:
        if (plan.metadata.step or 0) % 2:
            raise OSError(errno.EIO, "I/O")
        return write_plan(path, plan, **options)

    monkeypatch.setattr("ckptfmt._core.training.saving.run_writer.write_plan", every_other)
    train(Checkpointer(tmp_path, {}, save_interval_steps=1, max_failed_saves=2), 6)
    assert steps_saved(tmp_path) == {2, 4, 6}


class Broken:
    """A component whose state has something that cannot be saved, or is none at all."""

    def __init__(self, state: Callable[[], Any]) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state()

    def load_state_dict(self, state: Any) -> None:
        raise AssertionError


def no_state() -> Any:
    raise AttributeError("no state yet")


BROKEN = [(lambda: {"bad": object()}, StateError, r"part\.bad"), (no_state, SaveError, "AttributeError: no state yet")]


@pytest.mark.parametrize(("state", "error", "text"), BROKEN)
def test_a_component_that_gives_no_state_does_not_end_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Callable[[], Any], error: type[Exception], text: str
) -> None:
    ckpt = Checkpointer(tmp_path, {"part": Broken(state)}, save_interval_steps=1)
    train(ckpt, 2)
    assert isinstance(ckpt.last_error, error)
    told = capsys.readouterr().err
    assert re.search(rf"FAILED.* step 1\b.*{text}", told)
    assert re.search(r"step 2\b.*NOT SAVED", told)
    assert not names(tmp_path)


@pytest.mark.parametrize(("state", "error", "text"), BROKEN)
def test_or_it_does_if_so_wanted(tmp_path: Path, state: Callable[[], Any], error: type[Exception], text: str) -> None:
    ckpt = Checkpointer(tmp_path, {"part": Broken(state)}, on_failed_save="raise")
    ckpt.resume(quiet=True)
    with pytest.raises(error, match=text):
        ckpt.save()
    assert not names(tmp_path)


@pytest.mark.parametrize("background", [True, False])
def test_the_last_save_of_a_run_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    left = 2

    def stale(path: Path, plan: SavePlan, **options: Any) -> SaveReport:
        nonlocal left
        if left == 0:
            return write_plan(path, plan, **options)
        left -= 1
        raise OSError(errno.ESTALE, "stale")

    monkeypatch.setattr("ckptfmt._core.training.saving.run_writer.write_plan", stale)
    ckpt = Checkpointer(tmp_path, {}, background=background)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(4)):
            ckpt.step()
        ckpt.end_epoch(val_loss=0.5)
    assert steps_saved(tmp_path) == {4}
    assert ckpt.last_saved is not None
    with ckptfmt.open(ckpt.last_saved.path) as checkpoint:
        assert checkpoint.metadata.metrics == {"val_loss": 0.5}


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
    with Checkpointer(train_url, {"net": net}, save_on_exception=True, save_interval_epochs=None) as ckpt:
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
    with Checkpointer(train_url, {}, save_interval_epochs=None) as ckpt:
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
        assert not names(tmp_path)
        return
    assert steps_saved(tmp_path) == {3}
    again = Failing()
    ckpt = Checkpointer(tmp_path, {"net": again})
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
    assert not names(tmp_path)
