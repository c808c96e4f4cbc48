"""Random generators that are objects of their own: their states, and where loaders keep them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import DataLoader

from ckptfmt.errors import MismatchError

__all__ = ["StatefulGenerator", "as_stateful", "find_generators"]

Generator = np.random.Generator | np.random.RandomState | random.Random | torch.Generator

_MAX_OBJECTS = 1000
_MAX_DEPTH = 8
_MAX_ITEMS = 64
_LOADER_PARTS = ("generator", "sampler", "batch_sampler", "dataset", "collate_fn")


class StatefulGenerator:
    """A random generator with `state_dict()` and `load_state_dict()`, in values that the format expresses.

    The children that `numpy.random.Generator.spawn` has made are not counted in NumPy's state, and so not here.

    Attributes:
        generator: The generator itself.
    """

    def __init__(self, generator: Generator) -> None:
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
    return StatefulGenerator(obj) if _is_generator(obj) else obj


def find_generators(loader: object) -> dict[str, StatefulGenerator]:
    """Return the generators that a loader keeps, by the path of attributes to each: `sampler.generator`.

    Looked through are a DataLoader's samplers, data set and collate function, and what these keep in attributes
    and short lists or dicts; of any other loader the object itself. The search reads attributes and runs no code of
    theirs. It is bounded, so that it costs milliseconds however large the data set is.
    """
    found: dict[str, StatefulGenerator] = {}
    seen: dict[int, object] = {}  # the objects themselves: an id is only good while its object lives
    waiting: deque[tuple[str, object, int]] = deque([("", loader, 0)])
    while waiting and len(seen) < _MAX_OBJECTS:
        path, value, depth = waiting.popleft()
        if id(value) in seen:
            continue
        if _is_generator(value):
            found[path] = StatefulGenerator(value)
        elif depth < _MAX_DEPTH:
            waiting.extend((_join(path, name), part, depth + 1) for name, part in _parts(value))
        seen[id(value)] = value
    return found


def _is_generator(value: object) -> TypeGuard[Generator]:
    # SystemRandom is a Random that has no state.
    return isinstance(value, Generator) and not isinstance(value, random.SystemRandom)


def _parts(value: object) -> Iterator[tuple[str, object]]:
    match value:
        case DataLoader():
            # Not its running iterator, which leads to all of these by other paths, at some times only.
            pairs: list[tuple[str, object]] = [(name, getattr(value, name, None)) for name in _LOADER_PARTS]
        case partial():
            pairs = [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
        case MethodType():
            pairs = [("self", value.__self__)]
        case dict():
            pairs = [(f"[{key!r}]", part) for key, part in value.items()] if len(value) <= _MAX_ITEMS else []
        case list() | tuple():
            pairs = [(f"[{index}]", part) for index, part in enumerate(value)] if len(value) <= _MAX_ITEMS else []
        case torch.Tensor() | np.ndarray():
            pairs = []
        case _:
            pairs = list(_attributes(value).items())
    return ((name, part) for name, part in pairs if _may_hold_more(part))


def _may_hold_more(value: object) -> bool:
    return isinstance(value, Generator | dict | list | tuple | partial | MethodType) or bool(_attributes(value))


def _attributes(value: object) -> dict[str, object]:
    if isinstance(value, type | ModuleType | FunctionType):
        return {}
    try:
        # Not getattr: a __getattr__ of the user's must not be called.
        attributes: dict[str, object] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return attributes


def _join(path: str, name: str) -> str:
    return name if not path else f"{path}{name}" if name.startswith("[") else f"{path}.{name}"


def _state(generator: Generator) -> Any:
    match generator:
        case np.random.Generator():
            return generator.bit_generator.state
        case np.random.RandomState():
            return _legacy_state(generator)
        case torch.Generator():
            return generator.get_state()
    return generator.getstate()


def _set_state(generator: Generator, state: Any) -> None:
    match generator:
        case np.random.Generator():
            generator.bit_generator.state = state
        case np.random.RandomState():
            generator.set_state(state)
        case torch.Generator():
            generator.set_state(state)
        case random.Random():
            generator.setstate(state)


def _another(generator: Generator) -> Generator:
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
