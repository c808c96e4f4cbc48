"""What a contender has to do, and what several of them share."""

from __future__ import annotations

import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.workloads import Training

__all__ = ["AsyncContender", "Contender", "Missing", "adopt", "flatten", "require", "sync", "unflatten"]


class Missing(Exception):  # noqa: N818 - it is no error: the contender is left out
    """A library that is not installed."""


class Contender(ABC):
    """Saves a state durably, and restores it into live objects.

    Attributes:
        name: What the command line and the tables call it.
        verifies: Whether a restore notices each changed byte.
        saved_by: Another contender whose file it restores; it does not save itself.
    """

    name: ClassVar[str]
    verifies: ClassVar[bool] = False
    saved_by: ClassVar[str | None] = None

    @abstractmethod
    def save(self, training: Training, path: Path) -> None:
        """Save to a path at which there is nothing; return when it is durable."""

    @abstractmethod
    def restore(self, training: Training, path: Path) -> None:
        """Restore what `save` saved."""


class AsyncContender(Contender):
    """One that can write while the training goes on."""

    @abstractmethod
    def begin(self, training: Training, path: Path) -> Callable[[], None]:
        """Begin a save; return when the training may go on. What is returned waits until it is durable."""


def require(module: str) -> ModuleType:
    """Import a module that need not be there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Missing(f"{module} is not installed") from error


def sync(path: Path) -> None:
    """Make a file, or a directory with all files in it, durable."""
    for file in [path, *path.rglob("*"), path.parent]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def state_of(training: Training) -> dict[str, Any]:
    """Return the state as everybody saves it."""
    return {"net": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}


def adopt(training: Training, state: dict[str, Any]) -> None:
    """Load a state as PyTorch documents it."""
    training.model.load_state_dict(state["net"])
    training.optimizer.load_state_dict(state["optimizer"])


def flatten(training: Training) -> tuple[dict[str, Tensor], str]:
    """Return the state for those that know named tensors only: the tensors, and the rest as text."""
    state = state_of(training)
    tensors = {f"net.{name}": tensor for name, tensor in state["net"].items()}
    for number, moments in state["optimizer"]["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in moments.items()}
    return tensors, json.dumps(state["optimizer"]["param_groups"])


def unflatten(tensors: dict[str, Tensor], rest: str) -> dict[str, Any]:
    """Return the state that was flattened."""
    net: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, key = name.partition(".")
        if kind == "net":
            net[key] = tensor
        else:
            number, _, key = key.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
    return {"net": net, "optimizer": {"state": moments, "param_groups": json.loads(rest)}}


def as_bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
