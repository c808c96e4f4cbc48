"""States of the global random generators that a training loop draws from."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ckptfmt._core.training.loop.progress import RandomState
from ckptfmt.errors import MismatchError

__all__ = ["RandomState", "capture", "check", "losses", "restore", "same"]

# What the generators raise for an invalid state.
_REFUSALS = (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError)
_HOST = ("python", "numpy", "torch")


class _Accelerator(NamedTuple):
    """A kind of device with generators. None is queried before it is in use."""

    name: str
    in_use: Callable[[], bool]
    device_count: Callable[[], int]
    capture: Callable[[int], torch.Tensor]
    restore: Callable[[torch.Tensor, int], None]


_ACCELERATORS = (
    _Accelerator(
        "cuda",
        torch.cuda.is_initialized,
        torch.cuda.device_count,
        torch.cuda.get_rng_state,
        torch.cuda.set_rng_state,
    ),
    _Accelerator(
        "xpu",
        torch.xpu.is_initialized,
        torch.xpu.device_count,
        torch.xpu.get_rng_state,
        torch.xpu.set_rng_state,
    ),
    # MPS has one device, and no API that shows whether it is in use.
    _Accelerator(
        "mps",
        torch.backends.mps.is_available,
        torch.mps.device_count,
        lambda _: torch.mps.get_rng_state(),
        lambda state, _: torch.mps.set_rng_state(state),
    ),
)


def capture() -> RandomState:
    """Return the states of the global generators of Python, NumPy and PyTorch.

    Keys: `python`, `numpy`, `torch`, and for each kind of accelerator in use (`cuda`, `xpu`, `mps`) a list with one
    state per device. A kind is omitted until PyTorch has initialized it: before that, nothing can have been drawn, and
    a query would initialize it.
    """
    state: RandomState = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    for accelerator in _ACCELERATORS:
        if accelerator.in_use():
            state[accelerator.name] = [accelerator.capture(device) for device in range(accelerator.device_count())]
    return state


def same(one: RandomState, other: RandomState) -> bool:
    """Return whether two states from `capture` are equal."""
    return bool(_plain(one) == _plain(other))


def restore(state: RandomState) -> None:
    """Set the generators to states from `capture`.

    States of missing devices are skipped; `losses` lists them.

    Raises:
        MismatchError: A generator does not accept its state. No generator was changed.
    """
    check(state)
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for accelerator in _ACCELERATORS:
        for device, device_state in _present(accelerator, state):
            accelerator.restore(device_state, device)


def check(state: RandomState) -> None:
    """Raise MismatchError, with all differences, unless `restore` can use `state`.

    The states are tested on temporary generators. Missing devices are not an error here; `losses` lists them.
    """
    differences = [f"rng.{name}: {why}" for name in _HOST if (why := _host_difference(state, name)) is not None]
    for accelerator in _ACCELERATORS:
        try:
            for device, device_state in _present(accelerator, state):
                torch.Generator(f"{accelerator.name}:{device}").set_state(device_state)
        except _REFUSALS as error:
            differences.append(f"rng.{accelerator.name}: not states of these generators: {error!r}")
    if differences:
        raise MismatchError("the random states cannot be restored", differences)


def losses(state: RandomState) -> list[str]:
    """Return the generator states that a restore would lose, such as `cuda: 4 devices in the checkpoint, 2 here`.

    With any loss, a resumed run draws different numbers than an uninterrupted one. Changes nothing.

    Args:
        state: States from `capture`, or the part of them in a checkpoint.
    """
    lost = [f"{name}: not in the checkpoint" for name in _HOST if name not in state]
    for accelerator in _ACCELERATORS:
        here = accelerator.device_count() if accelerator.name in state or accelerator.in_use() else 0
        if accelerator.name not in state:
            if here:
                lost.append(f"{accelerator.name}: not in the checkpoint, in use here")
        elif isinstance(state[accelerator.name], list) and len(state[accelerator.name]) > here:
            lost.append(f"{accelerator.name}: {_devices(len(state[accelerator.name]))} in the checkpoint, {here} here")
    return lost


def _plain(state: Any) -> Any:
    """Return a state in comparable values."""
    if isinstance(state, dict):
        return {name: _plain(part) for name, part in state.items()}
    if isinstance(state, list):
        return [_plain(part) for part in state]
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    return state.tobytes() if isinstance(state, np.ndarray) else state


def _host_difference(state: RandomState, name: str) -> str | None:
    if name not in state:
        return "not in the checkpoint"
    try:
        match name:
            case "python":
                random.Random().setstate(state[name])  # noqa: S311 - only to try the state on
            case "numpy":
                _numpy_like_the_global_one().set_state(state[name])
            case _:
                torch.Generator().set_state(state[name])
    except _REFUSALS as error:
        return f"not a state of this generator: {error!r}"
    return None


def _numpy_like_the_global_one() -> np.random.RandomState:
    bit_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # the stubs lack it
    return np.random.RandomState(type(bit_generator)())


def _present(accelerator: _Accelerator, state: RandomState) -> list[tuple[int, torch.Tensor]]:
    """Return the saved states of the present devices."""
    if accelerator.name not in state:
        return []
    states = state[accelerator.name]
    if not isinstance(states, list):
        raise TypeError(f"expected a list of states, found {type(states)}")
    return list(enumerate(states[: accelerator.device_count()]))


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
