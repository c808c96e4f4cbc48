"""A training in NumPy that signals itself in a step. Its last line of output: its steps, and its final weights.

Arguments: directory, number of the step in which to send a signal (0: none), the signal, kind of the loop.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
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

    def __init__(self, batches: int = BATCHES) -> None:
        self.batches = batches
        self.samples = np.random.default_rng(7).standard_normal((16 * batches, SIZE), np.float32)

    def __iter__(self) -> Iterator[Array]:
        order = np.random.permutation(len(self.samples))
        return (self.samples[order[start :: self.batches]] for start in range(self.batches))


def main() -> None:
    train = {"epochs": train_in_epochs, "steps": train_in_steps}[sys.argv[4]]
    directory, signal_step, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    np.random.seed(3)
    net = Net()
    ckpt = Checkpointer(directory, {"net": net}, keep_last=3)
    ckpt.resume()
    print(ckpt.step_count, flush=True)

    def may_signal() -> None:
        if ckpt.step_count + 1 == signal_step:
            os.kill(os.getpid(), number)

    train(ckpt, net, may_signal)
    imported = [name for name in sys.modules if name.startswith("ckptfmt._core.torch")]
    print(ckpt.step_count, hashlib.sha256(net.weights.tobytes()).hexdigest(), imported)


def train_in_epochs(ckpt: Checkpointer, net: Net, may_signal: Callable[[], None]) -> None:
    loader = Loader()
    for _ in ckpt.epochs(EPOCHS):
        for batch in ckpt.batches(loader):
            net.train(batch)
            may_signal()
            ckpt.step()


def train_in_steps(ckpt: Checkpointer, net: Net, may_signal: Callable[[], None]) -> None:
    """Train on two loaders with rounds of different lengths, and on numbers that no loader gives."""
    np.random.standard_normal(3)  # code before the loop may draw
    data, more = ckpt.cycle(Loader()), ckpt.cycle(Loader(BATCHES - 3))
    for _ in ckpt.steps(STEPS):
        net.train(next(data))
        net.train(next(more) + np.float32(np.random.random()))
        may_signal()
