"""Every learning-rate scheduler goes on from a checkpoint as if it had never stopped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

import ckptfmt.torch
from ckptfmt import StateError
from ckptfmt._core.torch.restore.plan import plan_restore
from tests.torch.same import same
from tests.torch.training import Exchange, dense_net, through_ckptfmt, through_pickle, train

Scheduler = lr_scheduler.LRScheduler


class Decay:
    """A callable object: its attributes are part of the scheduler's state."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.calls = 0

    def __call__(self, epoch: float) -> float:
        self.calls += 1
        return math.exp(-self.rate * epoch) + 0.001 * self.calls


def sequential(optimizer: Optimizer) -> Scheduler:
    parts = [lr_scheduler.ConstantLR(optimizer, 0.3, 2), lr_scheduler.MultiStepLR(optimizer, [2, 4], 0.5)]
    return lr_scheduler.SequentialLR(optimizer, parts, [3])


def chained(optimizer: Optimizer) -> Scheduler:
    return lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(optimizer), lr_scheduler.StepLR(optimizer, 2)], optimizer
    )


MAKERS: dict[str, Callable[[Optimizer], Scheduler]] = {
    "LambdaLR": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    "LambdaLR, object": lambda optimizer: lr_scheduler.LambdaLR(optimizer, Decay(0.1)),
    "MultiplicativeLR": lambda optimizer: lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.9),
    "MultiplicativeLR, object": lambda optimizer: lr_scheduler.MultiplicativeLR(optimizer, Decay(0.1)),
    "StepLR": lambda optimizer: lr_scheduler.StepLR(optimizer, 2),
    "MultiStepLR": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 4, 4, 6]),
    "ConstantLR": lambda optimizer: lr_scheduler.ConstantLR(optimizer, 0.3, 4),
    "LinearLR": lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.3, 1.0, 6),
    "ExponentialLR": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.7),
    "SequentialLR": sequential,
    "CosineAnnealingLR": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 8),
    "ChainedScheduler": chained,
    "ReduceLROnPlateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, cooldown=1),
    "CyclicLR": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, 2, 3, "triangular2"),
    "CyclicLR, object": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, 2, scale_fn=Decay(0.1)),
    "CosineAnnealingWarmRestarts": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, 2),
    "OneCycleLR": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20, three_phase=True),
    "PolynomialLR": lambda optimizer: lr_scheduler.PolynomialLR(optimizer, 6, 2.0),
    "SWALR": lambda optimizer: torch.optim.swa_utils.SWALR(optimizer, 0.05, 3),
}


def test_no_scheduler_of_pytorch_is_left_out() -> None:
    known = {name.partition(",")[0] for name in MAKERS}
    assert set(lr_scheduler.__all__) - known == {"LRScheduler"}


def make(name: str, seed: int) -> tuple[nn.Module, Optimizer, Scheduler]:
    net = dense_net(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return net, optimizer, MAKERS[name](optimizer)


def go_on(net: nn.Module, optimizer: Optimizer, scheduler: Scheduler, steps: range) -> list[Any]:
    rates = []
    for step in steps:
        train(net, optimizer, [step])
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step([3.0, 2.0, 2.5, 2.6, 1.0, 1.1, 1.2, 1.3][step])
        else:
            scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


@pytest.mark.parametrize("exchange", [through_ckptfmt, through_pickle])
@pytest.mark.parametrize("name", MAKERS)
def test_the_rates_go_on_bit_for_bit(tmp_path: Path, name: str, exchange: Exchange) -> None:
    net, optimizer, scheduler = make(name, 0)
    go_on(net, optimizer, scheduler, range(3))
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    loaded = exchange(state, tmp_path / "checkpoint")
    expected = go_on(net, optimizer, scheduler, range(3, 8))

    other_net, other, other_scheduler = make(name, 1)
    other_net.load_state_dict(loaded["net"])
    other.load_state_dict(loaded["optimizer"])
    other_scheduler.load_state_dict(loaded["scheduler"])
    assert go_on(other_net, other, other_scheduler, range(3, 8)) == expected
    assert same(other_net.state_dict(), net.state_dict())
    assert same(other_scheduler.state_dict(), scheduler.state_dict())


@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR"])
def test_functions_are_not_stored_and_objects_are_stored_as_their_attributes(tmp_path: Path, name: str) -> None:
    *_, by_function = make(name, 0)
    *_, by_object = make(f"{name}, object", 0)
    state = {"function": by_function.state_dict(), "object": by_object.state_dict()}
    loaded = through_ckptfmt(state, tmp_path / "a.ckptfmt")
    assert loaded["function"]["lr_lambdas"] == [None]
    assert loaded["object"]["lr_lambdas"] == [{"rate": 0.1, "calls": by_object.state_dict()["lr_lambdas"][0]["calls"]}]


def test_a_callable_that_holds_an_object_is_refused_with_the_path(tmp_path: Path) -> None:
    class Holder:
        def __init__(self) -> None:
            self.inner = Decay(0.1)

        def __call__(self, epoch: int) -> float:
            return 1.0

    scheduler = lr_scheduler.LambdaLR(torch.optim.SGD([torch.ones(1)]), Holder())
    with pytest.raises(StateError, match=r"^scheduler\.lr_lambdas\[0\]\.inner: "):
        ckptfmt.torch.save({"scheduler": scheduler.state_dict()}, tmp_path / "a.ckptfmt")


@pytest.mark.parametrize("name", ["MultiStepLR", "SequentialLR"])
def test_restored_by_a_checkpointer_milestones_can_be_counted_again(tmp_path: Path, name: str) -> None:
    *_, scheduler = make(name, 0)
    loaded = through_ckptfmt({"scheduler": scheduler.state_dict()}, tmp_path / "a.ckptfmt")
    *_, other = make(name, 1)
    plan_restore({"scheduler": other}, loaded, path="a").apply("a")
    last = other._schedulers[-1] if isinstance(other, lr_scheduler.SequentialLR) else other
    assert isinstance(last, lr_scheduler.MultiStepLR)
    assert type(last.milestones) is Counter
