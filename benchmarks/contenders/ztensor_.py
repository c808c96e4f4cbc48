"""ztensor: pages of tensors with XXH3 digests, written one by one and mapped."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.utils.dlpack

from benchmarks.contenders.base import Contender, adopt, as_bytes, flatten, require, sync, unflatten
from benchmarks.workloads import Training

__all__ = ["Ztensor"]

_DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}


class Ztensor(Contender):
    """`Writer` and fsync; `open`, `verify(deep=True)`, and the mapped tensors."""

    name = "ztensor"
    verifies = True

    def __init__(self) -> None:
        self._library = require("ztensor")

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        tensors, rest = flatten(training)
        with self._library.Writer(str(path)) as writer:
            for name, tensor in sorted(tensors.items()):
                writer.add(name, as_bytes(tensor), shape=list(tensor.shape), dtype=_DTYPES[tensor.dtype])
            writer.set_attributes({"param_groups": rest})
        sync(path)

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        with self._library.open(str(path)) as source:
            source.verify(deep=True)
            tensors = {
                name: torch.utils.dlpack.from_dlpack(tensor).view(tensor.shape) for name, tensor in source.items()
            }
            # A map that may not be written to: the optimizer needs moments of its own.
            tensors = {name: value.clone() if name.startswith("o") else value for name, value in tensors.items()}
            adopt(training, unflatten(tensors, source.attributes["param_groups"]))
