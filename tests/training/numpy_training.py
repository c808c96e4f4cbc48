"""A training in NumPy that signals itself in a step. Its last line of output: its steps, and its final weights.

Arguments: directory, number of the step in which to send a signal (0: none), the signal.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.training.numpy_checkpointer import Checkpointer

EPOCHS = 3
BATCHES = 10
STEPS = EPOCHS * BATCHES
SIZE = 200

Array = np.ndarray[Any, np.dtype[Any]]


class Net:
    """A linear model, trained with momentum: all of it is changed in place at every step."""

    def __init__(self) -> None:
        self.weights = np.zeros((SIZE, SIZE), np.float32)
        self.momentum = np.zeros((SIZE, SIZE), np.float32)

    def train(self, batch: Array) -> None:
        noise = np.asarray(np.random.standard_normal(batch.shape), np.float32)
        self.momentum *= 0.9
        self.momentum += batch.T @ (batch + 0.1 * noise - batch @ self.weights)
        self.weights += np.float32(1e-4) * self.momentum

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "momentum": self.momentum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights[:], self.momentum[:] = state["weights"], state["momentum"]


class Loader:
    """Batches in another order in each pass."""

    def __init__(self) -> None:
        self.samples = np.random.default_rng(7).standard_normal((16 * BATCHES, SIZE), np.float32)

    def __iter__(self) -> Iterator[Array]:
        order = np.random.permutation(len(self.samples))
        return (self.samples[order[start::BATCHES]] for start in range(BATCHES))


def main() -> None:
    directory, signal_step, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    np.random.seed(3)
    net, loader = Net(), Loader()
    ckpt = Checkpointer(directory, {"net": net}, keep_last=3)
    ckpt.resume()
    print(ckpt.step_count, flush=True)
    for _ in ckpt.epochs(EPOCHS):
        for batch in ckpt.batches(loader):
            net.train(batch)
            if ckpt.step_count + 1 == signal_step:
                os.kill(os.getpid(), number)
            ckpt.step()
    imported = [name for name in sys.modules if name.startswith("ckptfmt._core.torch")]
    print(ckpt.step_count, hashlib.sha256(net.weights.tobytes()).hexdigest(), imported)
