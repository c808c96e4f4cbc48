"""Small pieces of training that the tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ckptfmt.torch

Exchange = Callable[[dict[str, Any], Path], dict[str, Any]]
"""Saves a checkpoint dict to a file and loads it again."""


def through_ckptfmt(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Save and load with ckptfmt."""
    ckptfmt.torch.save(state, path)
    loaded: dict[str, Any] = ckptfmt.torch.load(path)
    return loaded


def through_pickle(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Save and load with torch.save and torch.load."""
    torch.save(state, path)
    loaded: dict[str, Any] = torch.load(path, weights_only=False)
    return loaded


def dense_net(seed: int) -> nn.Module:
    """Return a net of two layers with weights of its own: (n, 4) to (n, 2)."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def dense_loss(net: nn.Module, step: int) -> torch.Tensor:
    """Return the loss on the batch of a step."""
    generator = torch.Generator().manual_seed(step)
    inputs, targets = torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)
    loss: torch.Tensor = nn.functional.mse_loss(net(inputs), targets)
    return loss


def train(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: Iterable[int],
    loss_of: Callable[[nn.Module, int], torch.Tensor] = dense_loss,
) -> None:
    """Do optimizer steps."""
    for step in steps:

        def closure(step: int = step) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(net, step)
            loss.backward()  # type: ignore[no-untyped-call]  # it has no annotations
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]  # annotated for closures that return floats


Parts = tuple[nn.Module, torch.optim.Optimizer]


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=0.01)


def trained(seed: int, steps: int = 3, optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adam) -> Parts:
    net = dense_net(seed)
    made = optimizer(net)
    train(net, made, range(steps))
    return net, made


def places(net: nn.Module, optimizer: torch.optim.Optimizer) -> list[int]:
    """Return where each tensor of several elements lies."""
    states = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    return [tensor.data_ptr() for tensor in (*net.parameters(), *states)]
