"""safetensors: one file of named tensors, the rest in its metadata."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contenders.base import Contender, adopt, flatten, require, sync, unflatten
from benchmarks.workloads import Training

__all__ = ["Safetensors"]


class Safetensors(Contender):
    """`save_file` and fsync; `safe_open`."""

    name = "safetensors"

    def __init__(self) -> None:
        self._library = require("safetensors.torch")

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        tensors, rest = flatten(training)
        self._library.save_file(tensors, path, metadata={"param_groups": rest})
        sync(path)

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        with require("safetensors").safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            adopt(training, unflatten(tensors, file.metadata()["param_groups"]))
