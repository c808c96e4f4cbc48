"""Which attributes lead to one object: a pass may make an attribute refer to another one that exists already.

To put the contents of that one into the object that a rebuilt loader has in its place would change an object that
others refer to. So the reference itself is restored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ckptfmt._core.torch.live_objects.attributes import Slot, is_generator, walk
from ckptfmt._core.torch.live_objects.generators import StatefulGenerator, make_generator

__all__ = ["Aliases", "is_copied", "put_references"]


class Aliases:
    """Paths that lead to the same objects, at one moment. Holds no objects.

    Args:
        slots: The attributes, from `walk` with `repeated=True`.
    """

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._ids = {slot.path: id(slot.value) for slot in slots}
        self._paths: dict[int, list[str]] = {}
        for path, number in self._ids.items():
            self._paths.setdefault(number, []).append(path)

    def __contains__(self, path: object) -> bool:
        return path in self._ids

    def same(self, path: str, other: Aliases) -> bool:
        """Return whether a path leads to the object that it led to at another moment, as far as both are known."""
        return path not in self._ids or path not in other._ids or self._ids[path] == other._ids[path]

    def partner(self, path: str, moving: Iterable[str]) -> str:
        """Return another path to the object at a path; empty if there is none.

        Args:
            path: The path.
            moving: Paths that lead to other objects from time to time.
        """
        skipped = {path, *moving}
        for other in self._paths.get(self._ids.get(path, 0), ()):
            if other not in skipped and not other.startswith((f"{path}.", f"{path}[", f"{path}(")):
                return other
        return ""


def put_references(loader: object, references: Mapping[str, str]) -> None:
    """Make attributes refer to the objects at other paths; with an empty path, to an object of their own."""
    slots: dict[str, Slot] = {}
    for slot in walk(loader, repeated=True):
        slots.setdefault(slot.path, slot)
    aliases = Aliases(slots.values())
    for slot, other in [(slots[path], other) for path, other in references.items() if path in slots]:
        if other in slots:
            slot.put(slots[other].value)
        elif not other and aliases.partner(slot.path, ()):
            slot.put(_copy(slot.value))


def is_copied(value: object) -> bool:
    """Return whether `put_references` can give an attribute an object of its own."""
    return type(value) in (list, dict, deque, set, torch.Tensor, np.ndarray) or is_generator(value)


def _copy(value: Any) -> Any:
    if is_generator(value):
        made = make_generator(StatefulGenerator(value).state_dict())
        return value if made is None else made.generator
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value.copy() if is_copied(value) else value
