"""Positions of iterators, observed from outside: nothing is taken from them, and no user code runs."""

from __future__ import annotations

import gc
import itertools
from types import GeneratorType
from typing import Any

from ckptfmt._core.torch.live_objects.attributes import is_plain, is_scalar

__all__ = ["place_of", "put_place", "saved_place"]

_OVER_SEQUENCES: tuple[Any, ...] = (
    type(iter([])),
    type(iter(())),
    type(iter(range(0))),
    type(iter("a")),
    type(iter("ä")),
)
_THROUGH_OTHERS = (
    zip,
    map,
    filter,
    enumerate,
    itertools.chain,
    itertools.cycle,
    itertools.islice,
    itertools.takewhile,
    itertools.dropwhile,
    itertools.starmap,
    itertools.compress,
)
_MAX_DEPTH = 4
_MAX_PARTS = 64


def saved_place(iterator: object) -> dict[str, Any] | None:
    """Return the position of an iterator over a sequence or count, in supported values; None for any other."""
    kind: Any = type(iterator)
    if kind is itertools.count:
        numbers = repr(iterator)[len("count(") : -1].split(", ")
        return {"count": [int(number) for number in numbers]} if all(map(_is_integer, numbers)) else None
    if kind in _OVER_SEQUENCES:
        reduced = kind.__reduce__(iterator)
        return {"place": reduced[2]} if len(reduced) == 3 else None  # otherwise it is exhausted
    return None


def put_place(iterator: object, saved: object) -> None:
    """Move an iterator over a sequence to a position from `saved_place`."""
    kind: Any = type(iterator)
    if kind in _OVER_SEQUENCES:
        kind.__setstate__(iterator, saved)


def place_of(iterator: object, depth: int = 0) -> str:
    """Return text that changes when an iterator advances, as far as that can be observed."""
    kind = type(iterator)
    saved = saved_place(iterator)
    if saved is not None:
        return str(saved)
    if depth < _MAX_DEPTH and (kind is GeneratorType or kind in _THROUGH_OTHERS):
        parts = gc.get_referents(iterator)[:_MAX_PARTS]
        frame = iterator.gi_frame if isinstance(iterator, GeneratorType) else None
        at = "" if frame is None else f" at {frame.f_lasti}"
        return f"{kind.__name__}{at}({', '.join(_text(part, depth + 1) for part in parts)})"
    return kind.__qualname__


def _text(part: object, depth: int) -> str:
    if is_scalar(part) or is_plain(part):
        return repr(part)
    return place_of(part, depth)


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdigit()
