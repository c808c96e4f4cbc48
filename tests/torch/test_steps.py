"""Loops that count steps: killed at any point, they end as if never interrupted."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

import ckptfmt
from ckptfmt.errors import MismatchError
from ckptfmt.torch import Checkpointer, UsageError
from tests.torch.directories import names
from tests.torch.tiny import BATCH, BATCHES, LOADERS, Killed, Log, Samples, final_state

STEPS = 3 * BATCHES + 1
"""Three rounds of the loaders and a step."""


def run(
    directory: Path, kind: str, *, kill: tuple[str, int] | None = None, steps: int = STEPS, interval: int | None = 1
) -> Log:
    """Train to the end, or to a kill in a step; `kind` says where the batches come from."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    log = Log()
    components = {"net": net, "optimizer": optimizer, "log": log}
    ckpt = Checkpointer(directory, components, save_interval_steps=interval)
    ckpt.resume(quiet=True)
    torch.rand(3)  # code before the loop may draw
    batches = _batches(ckpt, kind)
    for step in ckpt.steps(steps):
        if kill == ("begun", step):
            raise Killed
        batch = next(batches)
        optimizer.zero_grad()
        loss = net(batch).mean() * random.random()
        loss.backward()
        optimizer.step()
        log.lines.append((step, loss.item(), batch.tolist()))
        if kill == ("worked", step):
            raise Killed
        if step % 2:  # the others end with the body
            ckpt.step(loss=loss)
        if kill == ("over", step):
            raise Killed
    assert ckpt.global_step == max(steps, len(log.lines))
    return log


def _batches(ckpt: Checkpointer, kind: str) -> Iterator[torch.Tensor]:
    if kind == "get_batch":
        return iter(lambda: torch.rand(BATCH, 3), None)
    if kind == "two loaders":
        first, second = ckpt.cycle(LOADERS["shuffled"]()), ckpt.cycle(LOADERS["with_generator"]())
        return (torch.cat([one, other]) for one, other in zip(first, second, strict=False))
    if kind == "each round":
        sampler: Any = DistributedSampler(Samples(), num_replicas=1, rank=0)
        return ckpt.cycle(DataLoader(Samples(), BATCH, sampler=sampler), set_epoch=sampler.set_epoch)
    return ckpt.cycle(LOADERS[kind]())


KILLS = [("worked", 1), ("over", BATCHES - 1), ("begun", BATCHES), ("over", BATCHES), ("worked", STEPS - 1)]
KINDS = ["get_batch", "two loaders", "each round", *LOADERS]


@cache
def uninterrupted(kind: str) -> tuple[dict[str, str], list[Any]]:
    with TemporaryDirectory() as directory:
        lines = run(Path(directory), kind).lines
        return final_state(Path(directory)), lines


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_in_any_step_changes_nothing(tmp_path: Path, kind: str) -> None:
    state, lines = uninterrupted(kind)
    assert [line[0] for line in lines] == list(range(STEPS))
    for kill in KILLS:
        directory = tmp_path / f"{kill}"
        with contextlib.suppress(Killed):
            run(directory, kind, kill=kill)
        assert run(directory, kind).lines == lines, kill
        assert final_state(directory) == state, kill


def test_many_kills_change_nothing(tmp_path: Path) -> None:
    for step in range(1, STEPS):
        with contextlib.suppress(Killed):
            run(tmp_path, "shuffled", kill=("worked", step), interval=3)
    run(tmp_path, "shuffled", interval=3)
    assert final_state(tmp_path) == uninterrupted("shuffled")[0]


class Logging:
    """A loader that appends to a file what it loads."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __iter__(self) -> Iterator[int]:
        for number in range(4):
            with self.log.open("a") as file:
                file.write(str(number))
            yield number


def test_only_the_batches_of_the_present_round_are_loaded_again(tmp_path: Path) -> None:
    def train(n: int) -> list[int]:
        ckpt = Checkpointer(tmp_path / "run", {})
        ckpt.resume(quiet=True)
        return [batch for _, batch in zip(ckpt.steps(n), ckpt.cycle(Logging(tmp_path / "log")), strict=False)]

    assert train(14) == [*range(4), *range(4), *range(4), 0, 1]
    assert train(17) == [2, 3, 0]
    assert (tmp_path / "log").read_text() == "0123" * 3 + "01" + "0123" + "0"


def test_more_steps_continue_and_no_more_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "shuffled", steps=3)
    assert "nothing left" not in capsys.readouterr().err
    run(tmp_path, "shuffled", steps=3, interval=None)
    assert "3 of 3 steps" in capsys.readouterr().err
    run(tmp_path, "shuffled")
    assert "nothing left" not in capsys.readouterr().err
    assert final_state(tmp_path) == uninterrupted("shuffled")[0]


def test_the_last_step_is_saved_with_its_metrics(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {})
    ckpt.resume(quiet=True)
    for step in ckpt.steps(5):
        ckpt.step(loss=step)
    assert names(tmp_path) == ["ckpt-00000005-e0000.ckptfmt"]
    with ckptfmt.open(tmp_path / "ckpt-00000005-e0000.ckptfmt") as checkpoint:
        assert (checkpoint.metadata.step, checkpoint.metadata.metrics) == (5, {"loss": 4.0})


def test_steps_without_a_number_end_with_a_break(tmp_path: Path) -> None:
    def train(until: int) -> list[int]:
        ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
        ckpt.resume(quiet=True)
        seen = []
        for step in ckpt.steps():
            seen.append(step)
            ckpt.step()
            if ckpt.global_step == until:
                break
        ckpt.close()
        return seen

    assert train(3) == [0, 1, 2]
    assert train(5) == [3, 4]


def test_one_stage_after_another(tmp_path: Path) -> None:
    def train(kill: int | None) -> list[tuple[int, int]]:
        ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
        ckpt.resume(quiet=True)
        seen: list[tuple[int, int]] = []
        for stage, end in enumerate((2, 5)):
            for step in ckpt.steps(end):
                if step == kill:
                    return seen
                seen.append((stage, step))
        return seen

    assert train(4) == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert train(None) == [(1, 4)]


@pytest.fixture
def ckpt(tmp_path: Path) -> Checkpointer:
    checkpointer = Checkpointer(tmp_path, {})
    checkpointer.resume(quiet=True)
    return checkpointer


def test_batches_of_a_cycle_belong_to_a_step(ckpt: Checkpointer) -> None:
    data = ckpt.cycle([1, 2, 3])
    with pytest.raises(UsageError):
        next(data)
    with pytest.raises(UsageError):
        next(zip(ckpt.cycle([1]), ckpt.steps(2), strict=False))
    for _ in ckpt.steps(2):
        next(data)
        ckpt.step()
        with pytest.raises(UsageError):
            next(data)
    with pytest.raises(UsageError):
        next(data)


def test_a_cycle_beside_the_batches_of_an_epoch(tmp_path: Path) -> None:
    def train(kill: int | None) -> list[tuple[int, int]]:
        ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
        ckpt.resume(quiet=True)
        more = ckpt.cycle([10, 11, 12])
        seen = []
        for _ in ckpt.epochs(2):
            for batch in ckpt.batches([1, 2]):
                seen.append((batch, next(more)))
                if len(seen) == kill:
                    return seen[:-1]
                ckpt.step()
            ckpt.end_epoch()
        return seen

    once = train(None)
    assert once == [(1, 10), (2, 11), (1, 12), (2, 10)]
    for kill in (1, 2, 3, 4):
        for path in tmp_path.iterdir():
            path.unlink()
        assert train(kill) + train(None) == once


def test_a_batch_of_a_cycle_before_batches(ckpt: Checkpointer) -> None:
    data = ckpt.cycle([1, 2, 3])
    for _ in ckpt.epochs(1):
        next(data)
        with pytest.raises(UsageError):
            next(ckpt.batches([1]))


def test_a_loader_that_ends_for_ever(ckpt: Checkpointer) -> None:
    data = ckpt.cycle(iter([1, 2]))
    for step in ckpt.steps(3):
        if step == 2:
            with pytest.raises(UsageError):
                next(data)
            break
        next(data)


def test_steps_in_steps_and_what_belongs_to_epochs(ckpt: Checkpointer) -> None:
    for _ in ckpt.steps(1):
        with pytest.raises(UsageError):
            next(ckpt.steps(2))
        with pytest.raises(UsageError):
            next(ckpt.batches([1]))
        with pytest.raises(UsageError):
            ckpt.end_epoch()
        with pytest.raises(UsageError):
            ckpt.save()
        ckpt.step()
        with pytest.raises(UsageError):
            ckpt.step()
        ckpt.save()


@pytest.mark.parametrize("first", ["steps", "epochs"])
def test_another_kind_of_loop_is_refused(tmp_path: Path, first: str) -> None:
    def loop(kind: str, **options: Any) -> list[int]:
        ckpt = Checkpointer(tmp_path, {})
        ckpt.resume(quiet=True, **options)
        return list(getattr(ckpt, kind)(2))

    other = "epochs" if first == "steps" else "steps"
    assert loop(first) == [0, 1]
    with pytest.raises(MismatchError):
        loop(other)
    assert loop(other, allow_mismatch=["progress"]) == [0, 1]


def test_a_cycle_that_is_gone_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(n: int, cycles: int) -> None:
        ckpt = Checkpointer(tmp_path, {})
        ckpt.resume(quiet=True)
        made = [ckpt.cycle([1, 2, 3]) for _ in range(cycles)]
        for _ in ckpt.steps(n):
            list(map(next, made))

    train(2, cycles=2)
    assert "cycle()" not in capsys.readouterr().err
    train(3, cycles=1)
    assert "1 more cycle()" in capsys.readouterr().err


def test_batches_taken_ahead_of_the_steps_are_reported(ckpt: Checkpointer, capsys: pytest.CaptureFixture[str]) -> None:
    data = ckpt.cycle(range(10))
    batch = None
    for _ in ckpt.steps(4):
        batch = next(data) if batch is None else batch
        batch = next(data)
    assert capsys.readouterr().err.count("skips it") == 1
