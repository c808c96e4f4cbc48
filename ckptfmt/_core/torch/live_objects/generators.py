"""Random generator objects and their states."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ckptfmt._core.torch.live_objects.attributes import RandomGenerator, is_generator
from ckptfmt.errors import MismatchError

__all__ = ["StatefulGenerator", "as_stateful", "is_generator_state", "make_generator"]

_BIT_GENERATORS = {
    kind.__name__: kind
    for kind in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
}


class StatefulGenerator:
    """A random generator with `state_dict()` and `load_state_dict()`, in values that the format supports.

    NumPy's state does not count the children made by `numpy.random.Generator.spawn`, and neither does this one.

    Attributes:
        generator: The wrapped generator.
    """

    def __init__(self, generator: RandomGenerator) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Return the kind of the generator and its state."""
        return {"kind": self.kind, "state": _state(self.generator)}

    def load_state_dict(self, state_dict: Any, /) -> None:
        """Load a state from `state_dict`.

        Raises:
            MismatchError: The state belongs to another kind of generator, or is not a generator state. The generator
                was not changed.
        """
        difference = self.difference(state_dict)
        if difference is None:
            _set_state(self.generator, state_dict["state"])
        else:
            raise MismatchError("the state of a random generator cannot be restored", [difference])

    def difference(self, state_dict: object) -> str | None:
        """Return why `load_state_dict` would refuse a state; None if it would not. Changes nothing."""
        if not isinstance(state_dict, Mapping) or "state" not in state_dict:
            return f"{self.kind}: no random generator state in the checkpoint"
        if state_dict.get("kind") != self.kind:
            return f"{self.kind} here, {state_dict.get('kind')} in the checkpoint"
        try:
            _set_state(_another(self.generator), state_dict["state"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
            return f"{self.kind}: not a state of this generator: {error!r}"
        return None

    @property
    def kind(self) -> str:
        """Kind of the generator, such as `numpy.PCG64`, `torch.cpu` or `python`."""
        match self.generator:
            case np.random.Generator():
                return f"numpy.{type(self.generator.bit_generator).__name__}"
            case np.random.RandomState():
                return f"numpy.RandomState.{_legacy_state(self.generator)['bit_generator']}"
            case torch.Generator():
                return f"torch.{self.generator.device.type}"
        return "python"


def as_stateful(obj: object) -> object:
    """Return a random generator as a `StatefulGenerator`, anything else unchanged.

    Supports `numpy.random.Generator` and `RandomState`, `random.Random`, and `torch.Generator` on any device.
    """
    return StatefulGenerator(obj) if is_generator(obj) else obj


def is_generator_state(state: Mapping[object, object]) -> bool:
    """Return whether a value is a state from `StatefulGenerator.state_dict`. A PyTorch state contains a tensor."""
    return state.keys() == {"kind", "state"} and isinstance(state["kind"], str)


def make_generator(state: object) -> StatefulGenerator | None:
    """Return a new generator with a state from `StatefulGenerator.state_dict`; None for any other value."""
    kind = state.get("kind") if isinstance(state, Mapping) else None
    made: RandomGenerator | None = None
    match str(kind).split("."):
        case ["python"]:
            made = random.Random()  # noqa: S311 - it gets the saved state
        case ["numpy", "RandomState", name] if name in _BIT_GENERATORS:
            made = np.random.RandomState(_BIT_GENERATORS[name]())
        case ["numpy", name] if name in _BIT_GENERATORS:
            made = np.random.Generator(_BIT_GENERATORS[name]())
        case ["torch", device] if device in ("cpu", "cuda"):
            made = torch.Generator(device)
    if made is None:
        return None
    stateful = StatefulGenerator(made)
    if stateful.difference(state) is not None:
        return None
    stateful.load_state_dict(state)
    return stateful


def _state(generator: RandomGenerator) -> Any:
    match generator:
        case np.random.Generator():
            return generator.bit_generator.state
        case np.random.RandomState():
            return _legacy_state(generator)
        case torch.Generator():
            return generator.get_state()
    return generator.getstate()


def _set_state(generator: RandomGenerator, state: Any) -> None:
    match generator:
        case np.random.Generator():
            generator.bit_generator.state = state
        case np.random.RandomState():
            generator.set_state(state)
        case torch.Generator():
            generator.set_state(state)
        case random.Random():
            generator.setstate(state)


def _another(generator: RandomGenerator) -> RandomGenerator:
    """Return a new generator of the same kind, to test a state."""
    match generator:
        case np.random.Generator():
            return np.random.Generator(type(generator.bit_generator)())
        case np.random.RandomState():
            return np.random.RandomState(type(generator._bit_generator)())
        case torch.Generator():
            return torch.Generator(generator.device)
    return random.Random()  # noqa: S311 - only to test the state


def _legacy_state(generator: np.random.RandomState) -> dict[str, Any]:
    state: Any = generator.get_state(legacy=False)
    return dict(state)
