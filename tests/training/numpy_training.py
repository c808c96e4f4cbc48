"""A training in NumPy that signals itself in a step. Its last line of output: where it resumed, and its final weights.

Arguments: directory, number of the step in which to send a signal (0: none), the signal.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.training.numpy_checkpointer import Checkpointer

STEPS = 30
SIZE = 200


class Net:
    """A linear model, trained with momentum: all of it is changed in place at every step."""

    def __init__(self) -> None:
        self.weights = np.zeros((SIZE, SIZE), np.float32)
        self.momentum = np.zeros((SIZE, SIZE), np.float32)

    def train(self, batch: np.ndarray[Any, Any]) -> None:
        self.momentum *= 0.9
        self.momentum += batch.T @ (batch - batch @ self.weights)
        self.weights += np.float32(1e-4) * self.momentum

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "momentum": self.momentum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights[:], self.momentum[:] = state["weights"], state["momentum"]


class Data:
    """Batches drawn from a generator of their own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(7)

    def batch(self) -> np.ndarray[Any, Any]:
        return self.generator.standard_normal((16, SIZE), np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.bit_generator.state = state["generator"]


def main() -> None:
    directory, signal_step, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    net, data = Net(), Data()
    ckpt = Checkpointer(directory, {"net": net, "data": data}, keep_last=3)
    ckpt.resume()
    print(ckpt.step, flush=True)
    for step in ckpt.steps(STEPS):
        net.train(data.batch())
        if step + 1 == signal_step:
            os.kill(os.getpid(), number)
    imported = [name for name in sys.modules if name.startswith("ckptfmt._core.torch")]
    print(ckpt.step, hashlib.sha256(net.weights.tobytes()).hexdigest(), imported)
