"""Every optimizer goes on from a checkpoint as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from tests.torch.same import same
from tests.torch.training import Exchange, dense_loss, dense_net, through_ckptfmt, through_pickle, train

Problem = tuple[Callable[[int], nn.Module], Callable[[nn.Module, int], torch.Tensor]]


def sparse_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.EmbeddingBag(10, 2, sparse=True)


def sparse_loss(net: nn.Module, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    loss: torch.Tensor = net(torch.randint(10, (8, 3), generator=generator)).square().mean()
    return loss


def matrix_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, 2, bias=False))


DENSE: Problem = (dense_net, dense_loss)
PROBLEMS: dict[str, Problem] = {"SparseAdam": (sparse_net, sparse_loss), "Muon": (matrix_net, dense_loss)}
VARIANTS: dict[str, dict[str, object]] = {
    "SGD": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "Adam": {"amsgrad": True, "betas": (0.8, 0.9)},
    "AdamW": {"lr": torch.tensor(0.01), "maximize": True},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adagrad": {"initial_accumulator_value": 0.1, "lr_decay": 0.1},
    "LBFGS": {"line_search_fn": "strong_wolfe", "history_size": 3, "max_iter": 4},
    "NAdam": {"decoupled_weight_decay": True, "weight_decay": 0.1},
    "ASGD": {"t0": 2.0},
}
NAMES = sorted(
    name
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
)
CASES: list[tuple[str, dict[str, object]]] = [(name, {}) for name in NAMES] + [
    (name, VARIANTS[name]) for name in NAMES if name in VARIANTS
]


@pytest.mark.parametrize("exchange", [through_ckptfmt, through_pickle])
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}{options or ''}" for name, options in CASES])
def test_training_goes_on_bit_for_bit(
    tmp_path: Path, name: str, options: dict[str, object], exchange: Exchange
) -> None:
    make_net, loss_of = PROBLEMS.get(name, DENSE)
    make_optimizer: Callable[..., Optimizer] = getattr(torch.optim, name)
    net = make_net(0)
    optimizer = make_optimizer(net.parameters(), **{"lr": 0.01, **options})
    train(net, optimizer, range(3), loss_of)
    loaded = exchange({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint")
    assert same(loaded, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})
    train(net, optimizer, range(3, 7), loss_of)

    other_net = make_net(1)
    other = make_optimizer(other_net.parameters(), lr=0.5)
    other_net.load_state_dict(loaded["net"])
    other.load_state_dict(loaded["optimizer"])
    train(other_net, other, range(3, 7), loss_of)

    assert same(other_net.state_dict(), net.state_dict())
    assert same(other.state_dict(), optimizer.state_dict())


def test_groups_with_options_of_their_own(tmp_path: Path) -> None:
    def make(seed: int) -> tuple[nn.Module, Optimizer]:
        net = dense_net(seed)
        named = list(net.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": named[:2], "lr": 0.1, "note": "front"},
            {"params": named[2:], "betas": (0.5, 0.6)},
        ]
        return net, torch.optim.AdamW(groups)

    net, optimizer = make(0)
    train(net, optimizer, range(2))
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
    loaded = through_ckptfmt(state, tmp_path / "a.ckptfmt")
    train(net, optimizer, range(2, 4))

    other_net, other = make(1)
    other_net.load_state_dict(loaded["net"])
    other.load_state_dict(loaded["optimizer"])
    train(other_net, other, range(2, 4))
    assert same(other.state_dict(), optimizer.state_dict())
    assert other.state_dict()["param_groups"][0]["note"] == "front"


def test_grad_scaler_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def make(seed: int) -> tuple[nn.Module, Optimizer, torch.amp.GradScaler]:
        net = dense_net(seed)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100, growth_interval=2)
        return net, torch.optim.SGD(net.parameters(), lr=0.01), scaler

    def steps(net: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler, numbers: range) -> list[float]:
        scales = []
        for number in numbers:
            optimizer.zero_grad()
            loss = dense_loss(net, number)
            if number == 4:
                loss = loss * float("inf")  # the scaler backs off
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # it has no annotations
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        return scales

    net, optimizer, scaler = make(0)
    steps(net, optimizer, scaler, range(3))
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
    loaded = through_ckptfmt(state, tmp_path / "a.ckptfmt")
    assert same(loaded, through_pickle(state, tmp_path / "a.pth"))
    expected = steps(net, optimizer, scaler, range(3, 8))
    assert len(set(expected)) > 1

    other_net, other, other_scaler = make(1)
    other_net.load_state_dict(loaded["net"])
    other.load_state_dict(loaded["optimizer"])
    other_scaler.load_state_dict(loaded["scaler"])
    assert steps(other_net, other, other_scaler, range(3, 8)) == expected
    assert same(other_net.state_dict(), net.state_dict())
    assert other_scaler.state_dict() == scaler.state_dict()


def test_averaged_model_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def make(seed: int) -> tuple[nn.Module, Optimizer, torch.optim.swa_utils.AveragedModel]:
        net = dense_net(seed)
        moving = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]  # it has no annotations
        average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=moving)
        return net, torch.optim.SGD(net.parameters(), lr=0.01), average

    def steps(
        net: nn.Module, optimizer: Optimizer, average: torch.optim.swa_utils.AveragedModel, numbers: range
    ) -> None:
        for number in numbers:
            train(net, optimizer, [number])
            average.update_parameters(net)

    net, optimizer, average = make(0)
    steps(net, optimizer, average, range(3))
    loaded = through_ckptfmt({"net": net.state_dict(), "ema": average.state_dict()}, tmp_path / "a.ckptfmt")
    steps(net, optimizer, average, range(3, 6))

    other_net, other, other_average = make(1)
    other_net.load_state_dict(loaded["net"])
    other_average.load_state_dict(loaded["ema"])
    steps(other_net, other, other_average, range(3, 6))
    assert same(other_average.state_dict(), average.state_dict())
