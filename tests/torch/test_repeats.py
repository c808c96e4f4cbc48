"""A save of what is saved already makes no second file, unless anything at all may differ."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ckptfmt.torch import Checkpointer
from tests.torch.directories import names

FIRST, SECOND = "ckpt-00000002-e0000.ckptfmt", "ckpt-00000002-e0000-2.ckptfmt"


class Value:
    def __init__(self) -> None:
        self.tensor = torch.ones(5000)
        self.number = 1

    def state_dict(self) -> dict[str, object]:
        return {"tensor": self.tensor, "number": self.number}

    def load_state_dict(self, state: dict[str, object]) -> None:
        raise NotImplementedError


def saved_twice(directory: Path, between: Callable[[Path, Value], object], codec: str = "none") -> list[str]:
    """Save after a step, do something, and save once more; return the paths of what `wait` then says."""
    value = Value()
    ckpt = Checkpointer(directory, {"value": value}, save_interval_steps=2, save_interval_epochs=None, codec=codec)
    ckpt.resume(quiet=True)
    paths = []
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(3)):
            ckpt.step()
            if ckpt.global_step == 2:
                first = ckpt.wait()
                between(directory / FIRST, value)
                ckpt.save()
                paths = [report.path for report in (first, ckpt.wait()) if report is not None]
    assert ckpt.last_error is None
    return paths


def nothing(*_: object) -> None:
    """Change nothing."""


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_save_by_hand_after_one_that_was_due_makes_no_second_file(tmp_path: Path, codec: str) -> None:
    assert saved_twice(tmp_path, nothing, codec) == [str(tmp_path / FIRST)] * 2
    assert names(tmp_path) == [FIRST]


def damage(path: Path, _: Value) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1  # the index
    path.write_bytes(data)


@pytest.mark.parametrize(
    "between",
    [
        lambda _, value: value.tensor[4999].add_(1),
        lambda _, value: setattr(value, "number", 2),
        lambda _, value: setattr(value, "number", 1.0),
        lambda *_: torch.rand(1),
        lambda *_: random.random(),
        damage,
        lambda path, _: path.write_bytes(path.read_bytes()[:-1]),
    ],
    ids=["tensor", "value", "type", "torch's random state", "Python's random state", "damaged", "cut short"],
)
def test_whatever_is_different_makes_one(tmp_path: Path, between: Callable[[Path, Value], object]) -> None:
    assert saved_twice(tmp_path, between) == [str(tmp_path / FIRST), str(tmp_path / SECOND)]
    assert names(tmp_path) == [SECOND, FIRST]


def test_a_file_that_is_gone_is_written_again(tmp_path: Path) -> None:
    assert saved_twice(tmp_path, lambda path, _: path.unlink()) == [str(tmp_path / FIRST)] * 2
    assert names(tmp_path) == [FIRST]


def test_another_file_in_its_place_is_not_taken_for_it(tmp_path: Path) -> None:
    def replace(path: Path, _: Value) -> None:
        other = tmp_path / "other"
        other.mkdir()
        ckpt = Checkpointer(other, {})
        ckpt.resume(quiet=True)
        ckpt.save()
        ckpt.close()
        next(other.glob("*.ckptfmt")).replace(path)

    assert saved_twice(tmp_path, replace) == [str(tmp_path / FIRST), str(tmp_path / SECOND)]


def test_metrics_and_generations_differ(tmp_path: Path) -> None:
    for _ in range(2):
        ckpt = Checkpointer(tmp_path, {}, run_id="r")
        ckpt.resume(quiet=True)
        for loss in (1.0, 1.0, 2.0):
            ckpt.save(loss=loss)
        ckpt.close()
    assert len(names(tmp_path)) == 4


def fail_after_a_saved_step(train_url: Path) -> None:
    with Checkpointer(train_url, {}, save_interval_steps=1, save_on_exception=True) as ckpt:
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(1):
            for number in ckpt.batches(range(5)):
                if number == 2:
                    raise ZeroDivisionError
                ckpt.step()


def test_an_exception_after_a_step_that_was_saved_makes_none(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after_a_saved_step(tmp_path)
    assert names(tmp_path) == ["ckpt-00000001-e0000.ckptfmt", FIRST]
