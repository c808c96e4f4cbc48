"""Loggers of a run that was interrupted: each step is in the curves once. TensorBoard's own reader is the oracle."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from ckptfmt.errors import UsageError
from ckptfmt.torch import Checkpointer, tensorboard_options, wandb_options

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter


class Clock:
    """A clock by which each writer begins in a second of its own: TensorBoard reads the files in this order."""

    def __init__(self) -> None:
        self._ticks = itertools.count(1_800_000_000)

    def time(self) -> float:
        return next(self._ticks)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(event_file_writer, "time", Clock())
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports what it purges
    yield
    logging.getLogger("tensorboard").setLevel(logging.NOTSET)


def train(directory: Path, stop: int | None, *, purge: bool = True, epochs: int = 2) -> None:
    """Train 5 steps in each epoch, saving every third one; leave after a step, as a kill would, if `stop` is given."""
    ckpt = Checkpointer(directory, {"net": nn.Linear(1, 1)}, save_interval_steps=3, background=False)
    ckpt.resume(quiet=True)
    writer = SummaryWriter(str(directory / "logs"), **(tensorboard_options(ckpt) if purge else {}))
    for _ in ckpt.epochs(epochs):
        for _ in ckpt.batches(range(5)):
            ckpt.step()
            writer.add_scalar("loss", 100 * (stop or 0) + ckpt.global_step, ckpt.global_step)
            if ckpt.global_step == stop:
                writer.close()
                return
        ckpt.end_epoch()
        writer.add_scalar("val", ckpt.epoch, ckpt.global_step)
    writer.close()


def curve(directory: Path, name: str) -> list[tuple[int, float]]:
    """Return the points of a curve as TensorBoard shows them."""
    events = EventAccumulator(str(directory / "logs"), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


@pytest.mark.parametrize("stops", [[], [2], [4], [5], [8], [4, 4, 9]])
def test_each_step_is_in_the_curve_once(tmp_path: Path, stops: list[int]) -> None:
    for stop in stops:
        train(tmp_path, stop)
    train(tmp_path, None)
    steps = [step for step, _ in curve(tmp_path, "loss")]
    assert steps == list(range(1, 11))
    assert curve(tmp_path, "val") == [(5, 1.0), (10, 2.0)]


def test_the_later_values_count_from_the_repeated_step_on(tmp_path: Path) -> None:
    train(tmp_path, 8)  # step 6 is saved
    train(tmp_path, None)
    values = [value for _, value in curve(tmp_path, "loss")]
    assert values == [*(800.0 + step for step in range(1, 7)), *map(float, range(7, 11))]


def test_without_the_options_steps_are_there_twice(tmp_path: Path) -> None:
    train(tmp_path, 8, purge=False)
    train(tmp_path, None, purge=False)
    assert len(curve(tmp_path, "loss")) == 12


def test_steps_may_count_from_0(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {"net": nn.Linear(1, 1)})
    ckpt.resume(quiet=True)
    assert tensorboard_options(ckpt, first_step=0) == {"purge_step": 0}
    assert tensorboard_options(ckpt) == {"purge_step": 1}


def test_the_id_for_weights_and_biases_stays_the_same(tmp_path: Path) -> None:
    train(tmp_path, 4)
    found = []
    for _ in range(2):
        ckpt = Checkpointer(tmp_path, {"net": nn.Linear(1, 1)})
        ckpt.resume(quiet=True)
        found.append(wandb_options(ckpt))
        assert found[-1] == {"id": ckpt.run_id, "resume": "allow"}
    assert found[0] == found[1]


def test_an_id_that_weights_and_biases_refuses_is_changed(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {"net": nn.Linear(1, 1)}, run_id="team/run:1#" + "x" * 200)
    ckpt.resume(quiet=True)
    assert wandb_options(ckpt)["id"] == "team-run-1-" + "x" * 117


@pytest.mark.parametrize("options", [tensorboard_options, wandb_options])
def test_before_resume_nothing_is_known(tmp_path: Path, options: object) -> None:
    ckpt = Checkpointer(tmp_path, {"net": nn.Linear(1, 1)}, run_id="r")
    assert not ckpt.is_started
    with pytest.raises(UsageError):
        options(ckpt)  # type: ignore[operator]  # one of two functions
    ckpt.resume(quiet=True)
    assert ckpt.is_started
