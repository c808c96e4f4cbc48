"""Steps of training, with nothing but what such a step needs."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.workloads import GPT, Training

__all__ = ["train"]

_BATCH, _LENGTH = 1, 64


def train(training: Training, steps: int) -> None:
    """Do so many steps on random tokens."""
    model = training.model
    assert isinstance(model, GPT)
    tokens = model.wte.num_embeddings
    for _ in range(steps):
        batch = torch.randint(tokens, (_BATCH, _LENGTH + 1))
        training.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # it has no annotations
        training.optimizer.step()
