"""Orbax, as the users of JAX save: a tree of arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders.base import Contender, adopt, flatten, require, sync, unflatten
from benchmarks.workloads import Training

__all__ = ["Orbax"]


class Orbax(Contender):
    """`PyTreeCheckpointer`, with the tensors as NumPy arrays, which costs nothing."""

    name = "orbax"

    def __init__(self) -> None:
        self._library = require("orbax.checkpoint")
        self._bfloat16 = require("ml_dtypes").bfloat16

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        tensors, rest = flatten(training)
        tree = {name: self._array(tensor) for name, tensor in tensors.items()}
        self._library.PyTreeCheckpointer().save(path.absolute(), tree)
        (path / "rest").write_text(json.dumps([list(tensors), rest]))
        sync(path)

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        names, rest = json.loads((path / "rest").read_text())
        arguments = {name: self._library.RestoreArgs(restore_type=_ndarray()) for name in names}
        tree = self._library.PyTreeCheckpointer().restore(path.absolute(), restore_args=arguments)
        tensors = {name: self._tensor(array) for name, array in tree.items()}
        adopt(training, unflatten(tensors, rest))

    def _array(self, tensor: torch.Tensor) -> Any:
        if tensor.dtype is torch.bfloat16:
            return tensor.detach().view(torch.int16).numpy().view(self._bfloat16)
        return tensor.detach().numpy()

    def _tensor(self, array: Any) -> torch.Tensor:
        if array.dtype == self._bfloat16:
            return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
        return torch.from_numpy(array)


def _ndarray() -> Any:
    return require("numpy").ndarray
