"""Gradients that wait for their optimizer step: no save falls between micro-batches, and none is lost in silence."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckptfmt
from ckptfmt.torch import Checkpointer, Gradients, UsageError
from tests.torch.directories import names
from tests.torch.tiny import Killed, final_state

BATCHES = 8
EVERY = 3
"""Micro-batches of an optimizer step: two steps and two batches in an epoch."""


class AcceleratedOptimizer(torch.optim.Optimizer):
    """A wrapper that steps only when gradients are in sync, as Accelerate's does."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.sync_gradients = True

    @property
    def param_groups(self) -> Any:  # type: ignore[override]  # a property, as in Accelerate
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]  # likewise
        return self.optimizer.state

    def state_dict(self) -> Any:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.optimizer.load_state_dict(state)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # as in Accelerate
        if self.sync_gradients:
            self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        if self.sync_gradients:
            self.optimizer.zero_grad(set_to_none)


class Agent:
    """A component that has its optimizer in an attribute."""

    def __init__(self, net: nn.Module) -> None:
        self.parts = {"adam": torch.optim.Adam(net.parameters(), lr=0.1)}

    def step(self) -> None:
        self.parts["adam"].step()

    def zero_grad(self) -> None:
        self.parts["adam"].zero_grad()

    def state_dict(self) -> Any:
        return self.parts["adam"].state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.parts["adam"].load_state_dict(state)


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=0.1)


OPTIMIZERS: dict[str, Callable[[nn.Module], Any]] = {
    "adam": adam,
    "accelerate": lambda net: AcceleratedOptimizer(adam(net)),
    "agent": Agent,
}


class Accumulating:
    """A run that accumulates gradients, until it is killed or asked to leave in a batch."""

    def __init__(self, directory: Path, kind: str = "adam", zero_first: bool = True, **components: Any) -> None:
        torch.manual_seed(0)
        self.directory = directory
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.optimizer = OPTIMIZERS[kind](self.net)
        self.zero_first = zero_first
        self.saved: list[int] = []
        components = {"net": self.net, "optimizer": self.optimizer} | {
            name: make(self.net) for name, make in components.items()
        }
        self.ckpt = Checkpointer(directory, components, save_interval_steps=1)
        self.ckpt.resume(quiet=True)

    def train(self, epochs: int = 2, *, kill: int | None = None, leave: int | None = None) -> Accumulating:
        ckpt = self.ckpt
        for epoch in ckpt.epochs(epochs):
            for i, batch in ckpt.enumerate([torch.rand(2, 3) for _ in range(BATCHES)]):
                number = epoch * BATCHES + i
                if kill == number:
                    ckpt.close()
                    raise Killed
                if leave == number:
                    os.kill(os.getpid(), signal.SIGTERM)
                self.train_on(batch, i)
                ckpt.step()
                self.saved.append(ckpt.global_step)
        return self

    def train_on(self, batch: torch.Tensor, i: int) -> None:
        steps = (i + 1) % EVERY == 0
        if isinstance(self.optimizer, AcceleratedOptimizer):
            self.optimizer.sync_gradients = steps or i + 1 == BATCHES
            steps = True
        elif self.zero_first and i % EVERY == 0:
            self.optimizer.zero_grad()
        (self.net(batch) ** 2).mean().backward()
        if steps:
            self.optimizer.step()
            if not self.zero_first or isinstance(self.optimizer, AcceleratedOptimizer):
                self.optimizer.zero_grad()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_kill_at_any_batch_changes_nothing(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    calm = Accumulating(tmp_path / "calm", kind).train()
    last = int(kind == "accelerate")  # it steps at the end of the loader, too
    first = [0, 0, 1, 1, 1, 2, 2, 2 + last]
    assert calm.saved == first + [2 + last + step for step in first]
    saved = [f"ckpt-{step:08d}-e0000.ckptfmt" for step in first if step]
    assert [name for name in names(tmp_path / "calm") if name.endswith("e0000.ckptfmt")] == sorted(set(saved))
    for kill in (1, 3, 5, 8, 10, 13):
        with pytest.raises(Killed):
            Accumulating(tmp_path / f"{kill}", kind).train(kill=kill)
        Accumulating(tmp_path / f"{kill}", kind).train()
        assert final_state(tmp_path / f"{kill}") == final_state(tmp_path / "calm"), kill


@pytest.mark.parametrize("leave", [0, 1, 2, 4, 9])
def test_a_signal_waits_for_the_optimizer_step(tmp_path: Path, leave: int) -> None:
    run = Accumulating(tmp_path / "run")
    with pytest.raises(SystemExit) as left:
        run.train(leave=leave)
    assert left.value.code == 75
    assert run.ckpt.global_step == 2 * (leave // BATCHES) + (leave % BATCHES) // EVERY + 1
    Accumulating(tmp_path / "run").train()
    Accumulating(tmp_path / "calm").train()
    assert final_state(tmp_path / "run") == final_state(tmp_path / "calm")


def test_gradients_that_an_epoch_leaves_are_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Accumulating(tmp_path, zero_first=False).train(epochs=3)
    assert capsys.readouterr().err.count("ckptfmt.torch.Gradients") == 1


def test_gradients_that_an_epoch_leaves_can_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without them the resumed run would differ."""
    options: dict[str, Any] = {"zero_first": False, "gradients": Gradients}
    Accumulating(tmp_path / "calm", **options).train()
    Accumulating(tmp_path / "run", **options).train(epochs=1)
    Accumulating(tmp_path / "run", **options).train()
    assert final_state(tmp_path / "run") == final_state(tmp_path / "calm")
    assert "Gradients" not in capsys.readouterr().err
    Accumulating(tmp_path / "lost", zero_first=False).train(epochs=1)
    Accumulating(tmp_path / "lost", zero_first=False).train()
    assert final_state(tmp_path / "lost")["net"] != final_state(tmp_path / "calm")["net"]


def test_gradients_of_other_parameters() -> None:
    net = nn.Linear(1, 1)
    with pytest.raises(ValueError):
        Gradients(net).load_state_dict({"other": torch.zeros(1)})
    net.weight.grad = torch.ones(1, 1)
    Gradients(net).load_state_dict({"bias": torch.ones(1)})
    assert net.weight.grad is None
    assert net.bias.grad is not None


def test_no_save_by_hand_between_micro_batches(tmp_path: Path) -> None:
    run = Accumulating(tmp_path)
    for _ in run.ckpt.epochs(1):
        for i, batch in run.ckpt.enumerate([torch.ones(2, 3)] * BATCHES):
            run.train_on(batch, i)
            run.ckpt.step()
            if run.ckpt.global_step == 0:
                with pytest.raises(UsageError):
                    run.ckpt.save()
                with pytest.raises(UsageError):
                    run.ckpt.step()
            else:
                run.ckpt.save()
                break
        break


@pytest.mark.parametrize("skipped", [1, 4])
def test_a_step_that_a_scaler_skips(tmp_path: Path, skipped: int) -> None:
    def train(directory: Path, kill: int | None = None) -> int:
        torch.manual_seed(0)
        net = nn.Linear(3, 1)
        optimizer = adam(net)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        components = {"net": net, "optimizer": optimizer, "scaler": scaler}
        ckpt = Checkpointer(directory, components, save_interval_steps=1)
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(1):
            for i, batch in ckpt.enumerate([torch.full((2, 3), number + 1.0) for number in range(6)]):
                optimizer.zero_grad()
                scaler.scale(net(batch).mean() * (float("inf") if i == skipped else 1.0)).backward()
                scaler.step(optimizer)
                scaler.update()
                if i == kill:
                    ckpt.close()
                    raise Killed
                ckpt.step()
        return ckpt.global_step

    assert train(tmp_path / "calm") == 5
    for kill in range(1, 6):
        with pytest.raises(Killed):
            train(tmp_path / f"{kill}", kill)
        train(tmp_path / f"{kill}")
        assert final_state(tmp_path / f"{kill}") == final_state(tmp_path / "calm")


def test_iterations_that_only_collect_are_saved(tmp_path: Path) -> None:
    """As in reinforcement learning: old gradients are there, but none that waits."""
    net = nn.Linear(3, 1)
    optimizer = adam(net)
    ckpt = Checkpointer(tmp_path, {"net": net, "optimizer": optimizer}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    for step in ckpt.steps(6):
        if step in (2, 4):
            optimizer.zero_grad()
            net(torch.ones(1, 3)).sum().backward()
            optimizer.step()
    assert len(names(tmp_path)) == 6


def test_steps_that_accumulate_are_numbered_and_not_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Linear(3, 1)
    optimizer = adam(net)
    ckpt = Checkpointer(tmp_path, {"net": net, "optimizer": optimizer}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    for step in ckpt.steps(7):
        net(torch.ones(1, 3)).sum().backward()
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    assert names(tmp_path) == [f"ckpt-0000000{step}-e0000.ckptfmt" for step in (2, 4, 6, 7)]
    assert "gradients" in capsys.readouterr().err  # of the last step


def test_loops_without_optimizers_say_it_themselves(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for i, _ in ckpt.enumerate(range(5)):
            ckpt.step(accumulating=i % 2 == 0, loss=1)
    assert ckpt.global_step == 2
    with ckptfmt.open(tmp_path / "ckpt-00000002-e0000.ckptfmt") as checkpoint:
        assert checkpoint.metadata.metrics == {"loss": 1.0}


def test_optimizers_are_left_alone_after_the_loop(tmp_path: Path) -> None:
    run = Accumulating(tmp_path).train()
    assert not run.optimizer._optimizer_step_post_hooks
