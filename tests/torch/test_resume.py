"""A run that is killed and started again ends bit-identical to one that never was."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from ckptfmt.torch import Checkpointer
from tests.torch.tiny import (
    BATCH,
    EPOCHS,
    LOADERS,
    POINTS,
    STEPS,
    Killed,
    Loader,
    Point,
    Samples,
    final_state,
    run,
    shuffled,
    stateful_with_workers,
    with_workers,
)

# Both say how many processes there are, and nothing about what the loaders give.
workers = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:.*multi-threaded, use of fork:DeprecationWarning"
)


@cache
def uninterrupted(make_loader: Callable[[], Loader]) -> tuple[dict[str, str], list[object]]:
    """Return the end of a run that was left alone: identities of the components, and what it saw."""
    with tempfile.TemporaryDirectory() as directory:
        log = run(Path(directory), make_loader)
        return final_state(Path(directory)), log.lines


def killed(
    train_url: str | Path, make_loader: Callable[[], Loader], kills: list[Point], interval: int | None
) -> list[object]:
    """Return what a run saw that was killed at each of these points in turn, and then left alone."""
    for kill in kills:
        with contextlib.suppress(Killed):
            run(train_url, make_loader, kill=kill, interval=interval)
    return run(train_url, make_loader, interval=interval).lines


@pytest.mark.parametrize(
    ("name", "url"),
    [*((name, "{}") for name in LOADERS), ("shuffled", "memory://any{}"), ("stateful", "memory://any{}")],
)
def test_a_kill_at_any_point_changes_nothing(tmp_path: Path, name: str, url: str) -> None:
    expected = uninterrupted(LOADERS[name])
    assert len(expected[1]) == STEPS
    for number, point in enumerate(POINTS):
        train_url = url.format(tmp_path / str(number))
        lines = killed(train_url, LOADERS[name], [point], interval=1)
        assert (final_state(train_url), lines) == expected, point


@settings(max_examples=15)
@given(kills=st.lists(st.sampled_from(POINTS), max_size=6), interval=st.sampled_from([None, 1, 2, 4]))
def test_many_kills_change_nothing_whatever_the_interval(kills: list[Point], interval: int | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        lines = killed(Path(directory), shuffled, kills, interval)
        assert (final_state(Path(directory)), lines) == uninterrupted(shuffled)


@workers
@pytest.mark.parametrize("point", [Point("after step", 1), Point("batches over", 1), Point("epoch ended", 0)], ids=str)
def test_worker_processes_change_nothing(tmp_path: Path, point: Point) -> None:
    lines = killed(tmp_path, with_workers, [point], interval=1)
    assert (final_state(tmp_path), lines) == uninterrupted(with_workers)


@workers
@pytest.mark.parametrize("point", [Point("after step", 1), Point("after step", 4), Point("epoch ended", 0)], ids=str)
def test_worker_processes_of_a_stateful_loader_change_nothing(tmp_path: Path, point: Point) -> None:
    lines = killed(tmp_path, stateful_with_workers, [point], interval=1)
    assert lines == uninterrupted(stateful_with_workers)[1]


class Numbers(Samples):
    """Samples without anything random."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), 1.0, 2.0])


def with_persistent_workers() -> Loader:
    return DataLoader(Numbers(), BATCH, shuffle=True, num_workers=2, persistent_workers=True)


@workers
@pytest.mark.parametrize(
    "point",
    [Point("after step", 1), Point("after step", 3), Point("epoch ended", 0), Point("epoch ended", 1)],
    ids=str,
)
def test_persistent_worker_processes_change_nothing(tmp_path: Path, point: Point) -> None:
    lines = killed(tmp_path, with_persistent_workers, [point], interval=1)
    assert lines == uninterrupted(with_persistent_workers)[1]
    same = final_state(tmp_path).items() & uninterrupted(with_persistent_workers)[0].items()
    assert {name for name, _ in same} == {"net", "optimizer", "scheduler", "log", "rng", "progress"}


def counted(steps: int) -> list[torch.Tensor]:
    return list(torch.arange(float(steps)).view(-1, 1))


def test_a_finished_run_has_nothing_left_to_do(place: str) -> None:
    run(place)
    before = final_state(place)
    ckpt = Checkpointer(place, {})
    report = ckpt.resume(quiet=True)
    assert (report.step, report.epoch, report.batch) == (STEPS, EPOCHS, 0)
    assert list(ckpt.epochs(EPOCHS)) == []
    assert final_state(place) == before


def test_more_epochs_can_be_asked_for_later(tmp_path: Path) -> None:
    run(tmp_path)
    ckpt = Checkpointer(tmp_path, {})
    ckpt.resume(quiet=True)
    assert list(ckpt.epochs(EPOCHS + 2)) == [EPOCHS, EPOCHS + 1]


def test_what_the_epoch_draws_before_its_batches_is_drawn_again(tmp_path: Path) -> None:
    def seen(kill_at: int | None) -> list[tuple[int, int]]:
        random.seed(1)
        ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
        ckpt.resume(quiet=True)
        values = []
        for _ in ckpt.epochs(2):
            subset = random.sample(range(100), 4)
            for batch in ckpt.batches(counted(4)):
                values.append((ckpt.global_step, subset[int(batch)]))
                ckpt.step()
                if ckpt.global_step == kill_at:
                    return values
        return values

    first = seen(kill_at=6)
    rest = seen(kill_at=None)
    whole = [*first, *rest]
    assert [step for step, _ in whole] == list(range(8))
    for path in tmp_path.iterdir():
        path.unlink()
    assert seen(kill_at=None) == whole


def test_random_numbers_drawn_between_resume_and_loop_change_nothing(tmp_path: Path) -> None:
    def draw(noise: int, epochs: int) -> float:
        torch.manual_seed(0)
        ckpt = Checkpointer(tmp_path, {})
        ckpt.resume(quiet=True)
        torch.rand(noise)
        for _ in ckpt.epochs(epochs):
            value = torch.rand(1).item()
        return value

    draw(3, 1)
    once = draw(3, 2)
    for path in tmp_path.glob("ckpt-00000000*"):
        path.unlink()
    torch.manual_seed(0)
    draw(3, 1)
    assert draw(10, 2) == once


def test_leaving_the_loop_early_and_saving_goes_on_from_there(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {})
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(counted(5)):
            ckpt.step()
            if ckpt.global_step == 3:
                break
        break
    ckpt.save()

    again = Checkpointer(tmp_path, {})
    assert again.resume(quiet=True).batch == 3
    left = [batch.item() for _ in again.epochs(1) for batch in again.batches(counted(5))]
    assert left == [3, 4]


def test_several_batches_per_step(tmp_path: Path) -> None:
    def train(kill_at: int | None) -> list[list[float]]:
        ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
        ckpt.resume(quiet=True)
        steps, waiting = [], []
        for _ in ckpt.epochs(1):
            for batch in ckpt.batches(counted(6)):
                waiting.append(batch.item())
                if len(waiting) == 2:
                    steps.append(waiting)
                    waiting = []
                    ckpt.step()
                elif ckpt.global_step == kill_at:
                    return steps  # with a batch that no step has used
        return steps

    assert train(kill_at=1) == [[0, 1]]
    assert train(kill_at=None) == [[2, 3], [4, 5]]


def test_the_same_components_in_a_loop_without_batches(tmp_path: Path) -> None:
    def train(epochs: int) -> nn.Linear:
        torch.manual_seed(0)
        net = nn.Linear(2, 2)
        ckpt = Checkpointer(tmp_path, {"net": net})
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(epochs):
            with torch.no_grad():
                net.weight.add_(torch.rand(2, 2))
            ckpt.end_epoch()
        return net

    whole = train(4).weight
    for path in tmp_path.iterdir():
        path.unlink()
    train(1)
    train(2)
    assert torch.equal(train(4).weight, whole)


@pytest.fixture(autouse=True)
def _leave_the_global_generators_alone() -> Iterator[None]:
    state = random.getstate()
    yield
    random.setstate(state)
