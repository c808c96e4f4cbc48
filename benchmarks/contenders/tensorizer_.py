"""tensorizer: a stream of tensors with hashes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contenders.base import Contender, adopt, flatten, require, sync, unflatten
from benchmarks.workloads import Training

__all__ = ["Tensorizer"]


class Tensorizer(Contender):
    """`TensorSerializer` and fsync; `TensorDeserializer` with verified hashes."""

    name = "tensorizer"
    verifies = True

    def __init__(self) -> None:
        self._library = require("tensorizer")

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        tensors, rest = flatten(training)
        serializer = self._library.TensorSerializer(str(path))
        serializer.write_state_dict(tensors)
        serializer.close()
        path.with_suffix(".groups").write_text(rest)
        sync(path)

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        with self._library.TensorDeserializer(str(path), device="cpu", verify_hash=True) as tensors:
            adopt(training, unflatten(dict(tensors), path.with_suffix(".groups").read_text()))
