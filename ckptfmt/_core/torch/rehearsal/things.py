"""Live objects that a program can reach and that are not among the components, each with a digest of its state."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ckptfmt._core.container.state.flattening import flatten_component
from ckptfmt._core.torch.live_objects.attributes import is_generator, is_plain, is_scalar
from ckptfmt._core.torch.live_objects.contents import attributes, is_a, items
from ckptfmt._core.torch.live_objects.fingerprints import fingerprint
from ckptfmt._core.torch.live_objects.generators import StatefulGenerator, as_stateful
from ckptfmt._core.torch.state.rank_digests import Subject
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt._core.training.rehearsal.frames import Variable
from ckptfmt._core.training.rehearsal.journal import Kind, Thing
from ckptfmt._core.training.stateful import Stateful

__all__ = ["Reach", "state_digest", "value_digest"]

_ELEMENTS = 1 << 16  # of each tensor of a variable; components are compared completely
_MAX_THINGS = 2000
_MAX_DEPTH = 4
_MAX_ITEMS = 64
_MAX_SHOWN = 40
_CODE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, logging.Logger)
# Displays count for themselves; PyTorch's loaders and iterators are restored with the place in the data.
_IGNORED_PACKAGES = ("ckptfmt.", "tqdm.", "rich.", "argparse.")


def state_digest(component: Stateful) -> str:
    """Return a digest of the whole state of an object; empty if the format cannot express the state."""
    try:
        flat = flatten_component("state", component.state_dict(), TORCH_ADAPTERS, per_rank=False)
        return Subject(flat, frozenset(), frozenset()).fingerprint(None).small.hex()
    except Exception:  # noqa: BLE001 - `state_dict()` is arbitrary code, and a rehearsal must not change the program
        return ""


def value_digest(value: object) -> str:
    """Return a digest of a value, of large tensors only a sample; empty if it has none."""
    try:
        return fingerprint(value, _ELEMENTS, asks=False)
    except Exception:  # noqa: BLE001 - as in state_digest
        return ""


class Reach:
    """What a program can reach besides its components.

    Args:
        components: The components by name.
    """

    def __init__(self, components: Mapping[str, object]) -> None:
        objects = [part.generator if isinstance(part, StatefulGenerator) else part for part in components.values()]
        # What a component holds, as a wrapper holds its module, is saved with it.
        held = [part for item in objects for part in attributes(item).values() if not is_scalar(part)]
        modules = [inner for item in (*objects, *held) if isinstance(item, nn.Module) for inner in item.modules()]
        self._known = {id(item): item for item in (*objects, *held, *modules)}
        self._saved = {id(tensor) for module in modules for tensor in _tensors_of(module)}

    def things(self, variables: Iterable[Variable]) -> dict[str, Thing]:
        """Return what some variables lead to, by name."""
        found: dict[str, Thing] = {}
        seen = dict(self._known)
        for variable in variables:
            walk = self._inside(variable.name, variable.value, seen, 0)
            for path, thing in walk:
                if len(found) == _MAX_THINGS:
                    return found
                is_live = variable.is_live or thing.kind not in (Kind.VARIABLE, Kind.ATTRIBUTE)
                found[f"{path} in {variable.place}"] = Thing(
                    thing.kind, thing.type_name, thing.digest, thing.shown, is_live
                )
        return found

    def _inside(self, path: str, value: object, seen: dict[int, object], depth: int) -> Iterator[tuple[str, Thing]]:
        own = Kind.ATTRIBUTE if "." in path else Kind.VARIABLE
        if is_plain(value):
            yield path, _thing(own, value, value_digest(value), shown=repr(value) if is_scalar(value) else "")
            return
        if id(value) in seen or is_a(value, _CODE) or _is_ignored(value):
            return
        seen[id(value)] = value
        kind = self._state_kind(value)
        if kind is not None:
            stateful = as_stateful(value)
            assert isinstance(stateful, Stateful)
            digest = state_digest(stateful)
            if digest:
                yield path, _thing(kind, value, digest)
                return
        if is_a(value, (torch.Tensor, np.ndarray)):
            if id(value) not in self._saved:
                yield path, _thing(own, value, value_digest(value))
        elif is_a(value, (set, frozenset, bytes, bytearray)):
            yield path, _thing(own, value, value_digest(value))
        elif is_a(value, (dict, list, tuple, deque)):
            yield from self._items(path, value, own, seen, depth)
        elif depth < _MAX_DEPTH and not hasattr(type(value), "__next__"):
            for name, part in list(attributes(value).items()):
                yield from self._inside(f"{path}.{name}", part, seen, depth + 1)

    def _items(
        self, path: str, value: object, own: Kind, seen: dict[int, object], depth: int
    ) -> Iterator[tuple[str, Thing]]:
        parts = items(value)
        if len(parts) > _MAX_ITEMS or depth >= _MAX_DEPTH:
            yield path, _thing(own, value, value_digest(value))
            return
        for key, part in parts:
            yield from self._inside(f"{path}[{key!r}]", part, seen, depth + 1)
        yield f"len({path})", _thing(own, value, str(len(parts)), shown=str(len(parts)))

    def _state_kind(self, value: object) -> Kind | None:
        """Return the kind of an object with a state of its own; None for anything else."""
        if is_generator(value):
            return Kind.GENERATOR
        if is_a(value, nn.Module):
            assert isinstance(value, nn.Module)
            own = list(_tensors_of(value))
            return Kind.MODULE if any(id(tensor) not in self._saved for tensor in own) else None
        if is_a(value, Optimizer):
            return Kind.OPTIMIZER
        if is_a(value, LRScheduler):
            return Kind.SCHEDULER
        has_state = all(callable(getattr(type(value), name, None)) for name in ("state_dict", "load_state_dict"))
        return Kind.STATEFUL if has_state else None


def _tensors_of(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _thing(kind: Kind, value: Any, digest: str, shown: str = "") -> Thing:
    return Thing(kind, type(value).__name__, digest, shown if len(shown) <= _MAX_SHOWN else "")


def _is_ignored(value: object) -> bool:
    return f"{type(value).__module__}.".startswith(_IGNORED_PACKAGES)
