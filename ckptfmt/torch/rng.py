"""The state of every random generator that a training loop draws from."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ckptfmt.errors import MismatchError

__all__ = ["capture", "check", "restore"]

RandomState = dict[str, Any]
"""Generator name -> its state, in values that the format expresses."""


def capture() -> RandomState:
    """Return the states of the generators of Python, NumPy (the global one) and PyTorch.

    Keys: `python`, `numpy`, `torch`, and `cuda`, a list with one state per device. `cuda` is left out until
    CUDA is initialized: before, nothing can have been drawn there, and asking would initialize it.
    """
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # it has no annotations
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: RandomState) -> None:
    """Set the generators to the states that `capture` returned.

    States of CUDA devices that are not there are left out: on fewer devices, the run can't be the same anyway.

    Raises:
        MismatchError: A state is none that its generator takes. No generator was changed.
    """
    check(state)
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for device, device_state in _cuda_states(state):
        torch.cuda.set_rng_state(device_state, device)


def check(state: RandomState) -> None:
    """Raise MismatchError unless `state` holds what `restore` needs. Tried on generators made for it."""
    trials: dict[str, Callable[[], object]] = {
        "python": lambda: random.Random().setstate(state["python"]),  # noqa: S311 - only to try the state on
        "numpy": lambda: _numpy_like_the_global_one().set_state(state["numpy"]),
        "torch": lambda: torch.Generator().set_state(state["torch"]),
        "cuda": lambda: [torch.Generator(f"cuda:{device}").set_state(it) for device, it in _cuda_states(state)],
    }
    differences = []
    for name, trial in trials.items():
        try:
            trial()
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
            differences.append(f"rng.{name}: not a state of this generator: {error!r}")
    if differences:
        raise MismatchError("the random states cannot be restored", differences)


def _numpy_like_the_global_one() -> np.random.RandomState:
    bit_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # the stubs lack it
    return np.random.RandomState(type(bit_generator)())


def _cuda_states(state: RandomState) -> list[tuple[int, torch.Tensor]]:
    present = torch.cuda.device_count() if "cuda" in state and torch.cuda.is_available() else 0
    return list(enumerate(state["cuda"][:present])) if present else []
