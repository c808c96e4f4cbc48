"""Random generators that are objects of their own, and their states."""

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
    """A random generator with `state_dict()` and `load_state_dict()`, in values that the format expresses.

    The children that `numpy.random.Generator.spawn` has made are not counted in NumPy's state, and so not here.

    Attributes:
        generator: The generator itself.
    """

    def __init__(self, generator: RandomGenerator) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Return the kind of the generator and its state."""
        return {"kind": self.kind, "state": _state(self.generator)}

    def load_state_dict(self, state_dict: Any, /) -> None:
        """Take a state that `state_dict` returned.

        Raises:
            MismatchError: It is the state of another kind of generator, or of none. The generator was not changed.
        """
        difference = self.difference(state_dict)
        if difference is None:
            _set_state(self.generator, state_dict["state"])
        else:
            raise MismatchError("the state of a random generator cannot be restored", [difference])

    def difference(self, state_dict: object) -> str | None:
        """Say why `load_state_dict` would refuse a state; None if it would not. Nothing is changed."""
        if not isinstance(state_dict, Mapping) or "state" not in state_dict:
            return f"{self.kind}: the checkpoint has no state of a random generator"
        if state_dict.get("kind") != self.kind:
            return f"{self.kind} here, {state_dict.get('kind')} in the checkpoint"
        try:
            _set_state(_another(self.generator), state_dict["state"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
            return f"{self.kind}: not a state of this generator: {error!r}"
        return None

    @property
    def kind(self) -> str:
        """What the state belongs to, e.g. `numpy.PCG64`, `torch.cpu`, `python`."""
        match self.generator:
            case np.random.Generator():
                return f"numpy.{type(self.generator.bit_generator).__name__}"
            case np.random.RandomState():
                return f"numpy.RandomState.{_legacy_state(self.generator)['bit_generator']}"
            case torch.Generator():
                return f"torch.{self.generator.device.type}"
        return "python"


def as_stateful(obj: object) -> object:
    """Return a random generator as a `StatefulGenerator`, anything else as it is.

    Known are `numpy.random.Generator` and `RandomState`, `random.Random`, and `torch.Generator` of any device.
    """
    return StatefulGenerator(obj) if is_generator(obj) else obj


def is_generator_state(state: Mapping[object, object]) -> bool:
    """Say whether a value is what `StatefulGenerator.state_dict` returns. That of PyTorch's holds a tensor."""
    return state.keys() == {"kind", "state"} and isinstance(state["kind"], str)


def make_generator(state: object) -> StatefulGenerator | None:
    """Return a new generator with a state that `StatefulGenerator.state_dict` returned; None for any other value."""
    kind = state.get("kind") if isinstance(state, Mapping) else None
    made: RandomGenerator | None = None
    match str(kind).split("."):
        case ["python"]:
            made = random.Random()  # noqa: S311 - it gets the state of the one that it stands for
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
    """Return a generator of the same kind, to try a state on."""
    match generator:
        case np.random.Generator():
            return np.random.Generator(type(generator.bit_generator)())
        case np.random.RandomState():
            return np.random.RandomState(type(generator._bit_generator)())
        case torch.Generator():
            return torch.Generator(generator.device)
    return random.Random()  # noqa: S311 - only to try the state on


def _legacy_state(generator: np.random.RandomState) -> dict[str, Any]:
    state: Any = generator.get_state(legacy=False)
    return dict(state)
