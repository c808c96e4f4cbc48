"""Components of every kind: saved in the middle of a training, restored into new objects, and the same from then on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ckptfmt import MismatchError
from ckptfmt.torch import Checkpointer
from tests.torch.same import same
from tests.torch.training import dense_loss, dense_net, train


def save(directory: Path, **components: Any) -> None:
    with Checkpointer(directory, components) as ckpt:
        ckpt.resume(quiet=True)
        ckpt.save()


def restore(directory: Path, **components: Any) -> None:
    with Checkpointer(directory, components) as ckpt:
        ckpt.resume("must", quiet=True)


GENERATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "python": (lambda: random.Random(3), lambda it: float(it.gauss(0, 1))),
    "PCG64": (lambda: np.random.default_rng(3), lambda it: float(it.normal())),
    "PCG64DXSM": (lambda: np.random.Generator(np.random.PCG64DXSM(3)), lambda it: float(it.normal())),
    "MT19937": (lambda: np.random.Generator(np.random.MT19937(3)), lambda it: float(it.normal())),
    "Philox": (lambda: np.random.Generator(np.random.Philox(3)), lambda it: float(it.normal())),
    "SFC64": (lambda: np.random.Generator(np.random.SFC64(3)), lambda it: float(it.normal())),
    "RandomState": (lambda: np.random.RandomState(3), lambda it: float(it.normal())),
    "torch": (lambda: torch.Generator().manual_seed(3), lambda it: torch.randn(1, generator=it).item()),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_random_generators_go_on_where_they_were(tmp_path: Path, kind: str) -> None:
    make, draw = GENERATORS[kind]
    generator = make()
    for _ in range(5):  # an odd number: some keep the second of a pair
        draw(generator)
    save(tmp_path, noise=generator)
    other = make()
    restore(tmp_path, noise=other)
    assert [draw(other) for _ in range(9)] == [draw(generator) for _ in range(9)]


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_of_another_kind_is_a_mismatch(tmp_path: Path, kind: str) -> None:
    save(tmp_path, noise=GENERATORS[kind][0]())
    other = GENERATORS["python" if kind != "python" else "SFC64"][0]()
    with pytest.raises(MismatchError, match="noise: "):
        restore(tmp_path, noise=other)


def test_several_models_averages_and_metrics(tmp_path: Path) -> None:
    """A GAN with an average of its generator, and metrics that add up over the epoch."""

    average = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]  # it has no annotations

    def make(seed: int) -> dict[str, Any]:
        generator, critic = dense_net(seed), dense_net(seed + 1)
        return {
            "generator": generator,
            "critic": critic,
            "ema": AveragedModel(generator, multi_avg_fn=average),
            "optimizer": torch.optim.AdamW(generator.parameters(), lr=0.1),
            "critic_optimizer": torch.optim.SGD(critic.parameters(), lr=0.1, momentum=0.9),
            "loss": _persistent(MeanMetric()),
            "accuracy": _persistent(MulticlassAccuracy(num_classes=2)),
        }

    def go_on(parts: dict[str, Any], steps: range) -> list[float]:
        seen = []
        for step in steps:
            train(parts["generator"], parts["optimizer"], [step])
            train(parts["critic"], parts["critic_optimizer"], [step])
            parts["ema"].update_parameters(parts["generator"])
            parts["loss"].update(dense_loss(parts["ema"], step))
            parts["accuracy"].update(torch.tensor([0, 1]), torch.tensor([step % 2, 1]))
            seen.append((parts["loss"].compute().item(), parts["accuracy"].compute().item()))
        return [value for pair in seen for value in pair]

    parts = make(0)
    go_on(parts, range(3))
    save(tmp_path, **parts)
    others = make(5)
    restore(tmp_path, **others)
    assert go_on(others, range(3, 6)) == go_on(parts, range(3, 6))
    for name in ("generator", "critic", "ema", "optimizer", "critic_optimizer"):
        assert same(others[name].state_dict(), parts[name].state_dict()), name


def _persistent(metric: Any) -> Any:
    metric.persistent(True)  # by default a metric keeps its state out of its state dict
    return metric


class Position(nn.Module):
    """A module with a buffer that is not saved, and extra state that is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.seen: dict[str, Any] = {}

    def get_extra_state(self) -> dict[str, Any]:
        return self.seen

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.seen = state


def test_extra_state_of_modules_comes_back(tmp_path: Path) -> None:
    net = Position()
    net.seen = {"batches": 7, "last": (1.5, None), "mean": torch.tensor([1.0, 2.0])}
    save(tmp_path, net=net)
    other = Position()
    restore(tmp_path, net=other)
    assert same(other.seen, net.seen)


def test_a_grad_scaler_goes_on_with_its_scale(tmp_path: Path) -> None:
    def make() -> Any:
        return torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

    def use(scaler: Any, net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        optimizer.zero_grad()
        loss = dense_loss(net, step) * (float("inf") if step == 3 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    net = dense_net(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = make()
    for step in range(3):
        use(scaler, net, optimizer, step)
    save(tmp_path, net=net, optimizer=optimizer, scaler=scaler)
    other_net = dense_net(1)
    other_optimizer, other = torch.optim.SGD(other_net.parameters(), lr=0.9), make()
    restore(tmp_path, net=other_net, optimizer=other_optimizer, scaler=other)
    for step in range(3, 8):
        use(scaler, net, optimizer, step)
        use(other, other_net, other_optimizer, step)
        assert other.get_scale() == scaler.get_scale()
    assert same(other_net.state_dict(), net.state_dict())
