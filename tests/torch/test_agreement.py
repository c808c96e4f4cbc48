"""Data-parallel jobs in which one rank is slow or fails: all ranks decide alike, and none is left waiting."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist

import ckptfmt
from ckptfmt._core import pruning
from ckptfmt._core.container import writer
from ckptfmt._core.container.planning import SavePlan
from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.saving.staging import DeviceStaging
from ckptfmt.errors import SupersededError
from ckptfmt.torch import Checkpointer
from tests.torch.job import run_job

pytestmark = pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")

STEPS = 6


class Component:
    """A component whose state can be made to fail."""

    def __init__(self) -> None:
        self.weight = torch.zeros(3)
        self.fails = False

    def state_dict(self) -> dict[str, Any]:
        if self.fails:
            raise AttributeError("the component has no state")
        return {"weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]


def train(
    train_url: Path,
    before_step: Callable[[int, Checkpointer, Component], None] = lambda *_: None,
    **options: Any,
) -> list[Any]:
    """Train one epoch; return what this rank knew of the saves after each step and in the end."""
    net = Component()
    ckpt = Checkpointer(train_url, {"net": net}, save_interval_steps=1, save_interval_epochs=None, **options)
    ckpt.resume(quiet=True)
    known = []

    def note() -> None:
        known.append((ckpt.last_saved and Path(ckpt.last_saved.path).name, ckpt.last_error is not None))

    for _ in ckpt.epochs(1):
        for number in ckpt.batches(range(STEPS)):
            before_step(number, ckpt, net)
            net.weight += 1
            ckpt.step()
            note()
    note()
    return known


def steps_in(train_url: Path) -> list[int | None]:
    steps = []
    for path in sorted(train_url.glob("*.ckptfmt")):
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.verify() == ()
            steps.append(checkpoint.metadata.step)
    return steps


def slow_writes(rank: int, train_url: Path, when_busy: str) -> list[Any]:
    """Train while rank 0 writes the first checkpoint until the fourth step, or as long as it is waited for."""
    let_go = threading.Event()
    write = writer.write_plan

    def slow(*arguments: Any, **options: Any) -> Any:
        let_go.wait(None if when_busy == "skip" else 0.5)
        return write(*arguments, **options)

    def before_step(number: int, *_: object) -> None:
        if number == 3:
            let_go.set()

    with mock.patch("ckptfmt._core.training.saving.run_writer.write_plan", slow):
        return train(train_url, before_step, when_busy=when_busy)


def very_slow_write(rank: int, train_url: Path, background: bool) -> list[Any]:
    """Train one step whose save takes longer than the process group waits in an exchange."""

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(12)
        return writer.write_plan(*arguments, **options)

    with (
        mock.patch("ckptfmt._core.training.saving.run_writer.write_plan", slow),
        mock.patch("ckptfmt._core.training.saving.run_saves._WORD_SECONDS", 0.5),
    ):
        ckpt = Checkpointer(train_url, {}, background=background)
        ckpt.resume(quiet=True)
        ckpt.save()
        saved = ckpt.wait()
    return [saved and Path(saved.path).name]


@pytest.mark.slow
@pytest.mark.parametrize("background", [True, False])
def test_a_save_may_take_longer_than_an_exchange(tmp_path: Path, context: ForkServerContext, background: bool) -> None:
    ended = run_job(context, tmp_path, very_slow_write, tmp_path / "run", background, exchange_seconds=6)
    assert [it.code for it in ended] == [0, 0], ended
    assert ended[0].value == ended[1].value == ["ckpt-00000000-e0000.ckptfmt"]


@pytest.mark.parametrize("when_busy", ["skip", "wait"])
def test_a_slow_rank_is_waited_for_by_all_or_by_none(
    tmp_path: Path, context: ForkServerContext, when_busy: str
) -> None:
    ended = run_job(context, tmp_path, slow_writes, tmp_path / "run", when_busy)
    assert [it.code for it in ended] == [0, 0], ended
    assert ended[0].value == ended[1].value
    saved = steps_in(tmp_path / "run")
    if when_busy == "wait":
        assert saved == [1, 2, 3, 4, 5, 6]
    else:
        assert 1 in saved
        assert not {2, 3} & set(saved)


def failing_saves(rank: int, train_url: Path, what: str, options: dict[str, Any]) -> list[Any]:
    """Train while the saves of steps 2 and 3 fail in one way or the other."""
    place, _, failing_rank = what.partition(" of rank ")
    here = rank == int(failing_rank or 0)
    errors: dict[str, Exception] = {
        "write": OSError(errno.EIO, "I/O"),
        "copy": MemoryError(),
        "random states": RuntimeError("CUDA error"),
        "tidying": MemoryError(),
        "takeover": SupersededError("another process has taken over the run"),
        "takeover before tidying": SupersededError("another process has taken over the run"),
    }
    step = 0

    def failing(real: Callable[..., Any], where: str) -> Callable[..., Any]:
        def act(*arguments: Any, **named: Any) -> Any:
            plan = next((it for it in arguments if isinstance(it, SavePlan)), None)
            if where == place and here and (step if plan is None else plan.metadata.step) in (2, 3):
                raise errors[where]
            return real(*arguments, **named)

        return act

    def before_step(number: int, ckpt: Checkpointer, net: Component) -> None:
        nonlocal step
        if "tidying" in place:
            ckpt.wait()  # or it would be another save's that fails
        step = number + 1
        net.fails = place == "state" and here and step in (2, 3)

    with (
        mock.patch(
            "ckptfmt._core.training.saving.run_writer.write_plan",
            failing(failing(writer.write_plan, "write"), "takeover"),
        ),
        mock.patch.object(DeviceStaging, "copy", failing(DeviceStaging.copy, "copy")),
        mock.patch.object(rng, "capture", failing(rng.capture, "random states")),
        mock.patch(
            "ckptfmt._core.training.saving.tidying.prune_run",
            failing(failing(pruning.prune_run, "tidying"), "takeover before tidying"),
        ),
    ):
        return train(train_url, before_step, **options)


PLACES = ["write", "state of rank 0", "copy", "random states of rank 0", "random states of rank 1"]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("what", PLACES)
def test_a_failed_save_is_known_to_all_ranks_and_ends_none(
    tmp_path: Path, context: ForkServerContext, what: str, background: bool
) -> None:
    if what == "copy" and not background:
        pytest.skip("nothing is copied")
    ended = run_job(context, tmp_path, failing_saves, tmp_path / "run", what, {"background": background})
    assert [it.code for it in ended] == [0, 0], ended
    assert ended[0].value == ended[1].value
    assert any(failed for _, failed in ended[0].value)
    assert ended[0].value[-1] == ("ckpt-00000006-e0000.ckptfmt", False)
    assert steps_in(tmp_path / "run") == [1, 4, 5, 6]


@pytest.mark.parametrize("options", [{"on_failed_save": "raise"}, {"max_failed_saves": 2}], ids=str)
@pytest.mark.parametrize("what", PLACES)
def test_or_ends_all_of_them(tmp_path: Path, context: ForkServerContext, what: str, options: dict[str, Any]) -> None:
    ended = run_job(context, tmp_path, failing_saves, tmp_path / "run", what, options)
    assert [it.code for it in ended] == [1, 1], ended
    failing = 1 if what.endswith("1") else 0
    assert ended[failing].error == "SaveError"
    assert ended[1 - failing].error == "RankError"
    assert ended[1 - failing].said.startswith(f"rank {failing}: ")
    assert steps_in(tmp_path / "run") == [1]


def test_a_checkpoint_is_known_to_all_ranks_even_if_tidying_fails(tmp_path: Path, context: ForkServerContext) -> None:
    options = {"keep_last": 1, "background": False, "on_failed_save": "raise"}
    ended = run_job(context, tmp_path, failing_saves, tmp_path / "run", "tidying", options)
    assert [it.code for it in ended] == [0, 0], ended
    told = [(f"ckpt-{step:08d}-e0000.ckptfmt", step in (2, 3)) for step in range(1, STEPS + 1)]
    assert ended[0].value == ended[1].value == [*told, told[-1]]
    assert steps_in(tmp_path / "run") == [6]


@pytest.mark.parametrize("options", [{}, {"on_failed_save": "raise"}, {"background": False}], ids=str)
@pytest.mark.parametrize("what", ["takeover", "takeover before tidying"])
def test_a_run_that_was_taken_over_ends_on_all_ranks(
    tmp_path: Path, context: ForkServerContext, what: str, options: dict[str, Any]
) -> None:
    ended = run_job(context, tmp_path, failing_saves, tmp_path / "run", what, {"keep_last": 1, **options})
    assert [(it.code, it.error) for it in ended] == [(73, "SupersededError")] * 2
    assert steps_in(tmp_path / "run") == ([1] if what == "takeover" else [1, 2])


def leave_with_failing_saves(rank: int, train_url: Path, whom: int, failures: int) -> list[Any]:
    """Train until one rank is told to leave; some of the saves that follow fail."""
    left = failures

    def fail(path: Path, plan: SavePlan, **options: Any) -> SaveReport:
        nonlocal left
        if plan.metadata.step != 3 or left == 0:
            return writer.write_plan(path, plan, **options)
        left -= 1
        raise OSError(errno.ESTALE, "stale")

    def before_step(number: int, *_: object) -> None:
        if number == 2 and rank == whom:
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch("ckptfmt._core.training.saving.run_writer.write_plan", fail):
        return train(train_url, before_step)


@pytest.mark.parametrize("whom", [0, 1])
@pytest.mark.parametrize(("failures", "code"), [(0, 75), (2, 75), (99, 1)])
def test_all_ranks_leave_alike_and_the_last_save_is_tried_again(
    tmp_path: Path, context: ForkServerContext, whom: int, failures: int, code: int
) -> None:
    ended = run_job(context, tmp_path, leave_with_failing_saves, tmp_path / "run", whom, failures)
    assert [it.code for it in ended] == [code, code], ended
    assert steps_in(tmp_path / "run") == ([1, 2, 3] if code == 75 else [1, 2])


def uneven(rank: int, train_url: Path) -> None:
    ckpt = Checkpointer(train_url, {})
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(3 + rank)):
            ckpt.step()


def test_ranks_that_do_not_make_the_same_calls_are_told_so(tmp_path: Path, context: ForkServerContext) -> None:
    ended = run_job(context, tmp_path, uneven, tmp_path / "run")
    assert [it.error for it in ended] == ["UsageError"] * 2
    assert all("step 3 after 1 epochs" in it.said or "step 4" in it.said for it in ended)
