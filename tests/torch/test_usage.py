"""Wrong uses of a Checkpointer are told in words, and a wrong loader is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import ckptfmt
from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer, UsageError
from tests.torch.directories import names

BATCHES = [1, 2, 3]


@pytest.fixture
def ckpt(tmp_path: Path) -> Checkpointer:
    checkpointer = Checkpointer(tmp_path, {})
    checkpointer.resume(quiet=True)
    return checkpointer


def test_resume_twice(ckpt: Checkpointer) -> None:
    with pytest.raises(UsageError, match=r"resume\(\)"):
        ckpt.resume()


def test_resume_after_the_loop_began(ckpt: Checkpointer) -> None:
    for _ in ckpt.epochs(1):
        with pytest.raises(UsageError, match=r"resume\(\)"):
            ckpt.resume()


def test_nothing_goes_before_resume(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {})
    with pytest.raises(UsageError, match=r"resume\(\)"):
        next(ckpt.epochs(1))
    with pytest.raises(UsageError, match=r"resume\(\)"):
        ckpt.save()
    with pytest.raises(UsageError, match=r"batches\(\)"):
        next(ckpt.batches(BATCHES))
    with pytest.raises(UsageError, match=r"step\(\)"):
        ckpt.step()
    with pytest.raises(UsageError, match=r"end_epoch\(\)"):
        ckpt.end_epoch()
    assert not names(tmp_path)


def test_batches_outside_epochs(ckpt: Checkpointer) -> None:
    with pytest.raises(UsageError, match=r"batches\(\)"):
        next(ckpt.batches(BATCHES))


def test_epochs_in_epochs(ckpt: Checkpointer) -> None:
    for _ in ckpt.epochs(1):
        with pytest.raises(UsageError, match="end_epoch"):
            next(ckpt.epochs(2))


def test_batches_in_batches_and_after_batches(ckpt: Checkpointer) -> None:
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(BATCHES):
            with pytest.raises(UsageError, match=r"batches\(\)"):
                next(ckpt.batches(BATCHES))
        with pytest.raises(UsageError, match=r"batches\(\)"):
            next(ckpt.batches(BATCHES))


def test_step_outside_batches(ckpt: Checkpointer) -> None:
    with pytest.raises(UsageError, match=r"step\(\)"):
        ckpt.step()
    for _ in ckpt.epochs(1):
        list(ckpt.batches([]))
        with pytest.raises(UsageError, match=r"step\(\)"):
            ckpt.step()


def test_step_twice_for_one_batch(ckpt: Checkpointer) -> None:
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(BATCHES):
            ckpt.step()
            with pytest.raises(UsageError, match=r"step\(\)"):
                ckpt.step()
    assert ckpt.global_step == 3


def test_end_epoch_outside_and_twice(ckpt: Checkpointer) -> None:
    with pytest.raises(UsageError, match=r"end_epoch\(\)"):
        ckpt.end_epoch()
    for _ in ckpt.epochs(1):
        ckpt.end_epoch()
        with pytest.raises(UsageError, match=r"end_epoch\(\)"):
            ckpt.end_epoch()
    assert ckpt.epoch == 1


def test_end_epoch_inside_the_loop_over_batches(ckpt: Checkpointer) -> None:
    def train() -> None:
        for _ in ckpt.epochs(1):
            for _ in ckpt.batches(BATCHES):
                ckpt.step()
                ckpt.end_epoch()

    with pytest.raises(UsageError, match=r"end_epoch\(\)"):
        train()


def test_save_where_the_run_could_not_go_on(ckpt: Checkpointer) -> None:
    for _ in ckpt.epochs(1):
        with pytest.raises(UsageError, match=r"save\(\)"):
            ckpt.save()
        for _ in ckpt.batches(BATCHES):
            with pytest.raises(UsageError, match=r"step\(\)"):
                ckpt.save()
            ckpt.step()
            ckpt.save()
        with pytest.raises(UsageError, match=r"save\(\)"):
            ckpt.save()
    ckpt.save()


def test_an_epoch_without_end_epoch_is_ended(tmp_path: Path, ckpt: Checkpointer) -> None:
    for _ in ckpt.epochs(2):
        for _ in ckpt.batches(BATCHES):
            ckpt.step()
    assert ckpt.epoch == 2
    assert names(tmp_path) == ["ckpt-00000003-e0001.ckptfmt", "ckpt-00000006-e0002.ckptfmt"]


@pytest.mark.parametrize("steps", [0, -5])
def test_intervals_that_are_none(tmp_path: Path, steps: int) -> None:
    with pytest.raises(UsageError, match="save_interval_steps"):
        Checkpointer(tmp_path, {}, save_interval_steps=steps)


@pytest.mark.parametrize("codec", ["lzma", {"absent": "zstd"}, {"rng": "lzma"}], ids=str)
def test_codecs_that_are_none(tmp_path: Path, codec: Any) -> None:
    with pytest.raises(UsageError, match="codec"):
        Checkpointer(tmp_path, {}, codec=codec)


class Rude:
    def __float__(self) -> float:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "metric", ["0.5x", torch.ones(2), [1], None, 10**400, Rude()], ids=lambda it: type(it).__name__
)
def test_metrics_that_are_no_numbers_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: Any
) -> None:
    ckpt = Checkpointer(tmp_path, {}, on_failed_save="raise")
    ckpt.resume(quiet=True)
    ckpt.save(loss=metric, accuracy=0.5)
    saved = ckpt.wait()
    assert saved is not None
    with ckptfmt.open(saved.path) as checkpoint:
        assert checkpoint.metadata.metrics == {"accuracy": 0.5}
    assert capsys.readouterr().err.count("'loss'") == 1
    assert "'loss'" in str(ckpt.last_error)
    ckpt.save(loss=1)
    ckpt.wait()
    assert ckpt.last_error is None


def test_saves_are_due_every_so_many_steps_and_at_the_end_of_the_epoch(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {}, save_interval_steps=2)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches([1, 2, 3, 4, 5]):
            ckpt.step(loss=1.0)
        ckpt.end_epoch()
    assert names(tmp_path) == [
        "ckpt-00000002-e0000.ckptfmt",
        "ckpt-00000004-e0000.ckptfmt",
        "ckpt-00000005-e0001.ckptfmt",
    ]


def half_an_epoch(directory: Path, loader: Any) -> None:
    ckpt = Checkpointer(directory, {}, save_interval_steps=2)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(loader):
            ckpt.step()
            if ckpt.global_step == 2:
                return


def numbers(count: int, **options: Any) -> DataLoader[int]:
    return DataLoader(range(count), batch_size=2, **options)  # type: ignore[arg-type]  # a range will do


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        (numbers(8), numbers(10), r"\b4\b.*\b5\b"),
        (iter(BATCHES), iter([1]), r"\b2\b.*\b1\b"),
        (BATCHES, iter(BATCHES), r"\b3\b"),
        (numbers(8), numbers(8, generator=torch.Generator()), r"generator.*\b1\b"),
    ],
    ids=["longer", "shorter", "unsized", "generator"],
)
def test_another_loader_in_the_middle_of_an_epoch(tmp_path: Path, before: Any, after: Any, difference: str) -> None:
    half_an_epoch(tmp_path, before)
    ckpt = Checkpointer(tmp_path, {})
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        with pytest.raises(MismatchError, match=difference):
            next(ckpt.batches(after))
        break
