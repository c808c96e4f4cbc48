"""Where the batches of a loader come from that is no object with attributes: a list of them, or another iterator."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ckptfmt._core.torch.live_objects.contents import attributes, is_a
from ckptfmt._core.torch.live_objects.fingerprints import fingerprint

__all__ = ["IN_PLACE", "held_source", "order_of"]

IN_PLACE = "the list of batches, which is changed in place between epochs,"
"""What to say of a loader whose order follows from its order before."""

_BATCHES = (list, tuple, torch.Tensor, np.ndarray)
_THROUGH_OTHERS = (zip, map, filter, enumerate, itertools.chain, itertools.islice, itertools.starmap)
_ELEMENTS = 64
_MAX_DEPTH = 4


def order_of(loader: object) -> str:
    """Return a fingerprint of all batches of a list, tuple, tensor or array; nothing for any other loader."""
    if type(loader) not in _BATCHES:
        return ""
    try:
        return fingerprint(loader, _ELEMENTS)
    except Exception:  # noqa: BLE001 - batches may be anything, and none must end the training
        return ""


def held_source(loader: object) -> str | None:
    """Name the iterator that a loader takes from and that somebody else holds too, so that it may go on; or None.

    `islice(endless, n)` is such a loader, `zip(one, other)` and `enumerate(loader)` are not: theirs are their own.
    """
    try:
        return _held_by_others(loader, 0)
    except Exception:  # noqa: BLE001 - it is anybody's iterator, and a look must not end the training
        return None


def _held_by_others(loader: object, depth: int) -> str | None:
    if depth == _MAX_DEPTH or type(loader) not in (*_THROUGH_OTHERS, tuple):
        return None
    parts = gc.get_referents(loader)
    while parts:
        part = parts.pop()
        # A DataLoader itself keeps the iterator of its persistent workers.
        kept = attributes(part).get("_persistent_workers", False)
        if _references(part) > _OF_ITS_OWN and is_a(part, Iterator) and not kept:
            return type(part).__name__
        found = _held_by_others(part, depth + 1)
        if found is not None:
            return found
    return None


def _references(part: object) -> int:
    return sys.getrefcount(part)


def _count_own() -> int:
    """Return how many references there are to an iterator that nobody but a loader holds, counted as above."""
    loader: Any = itertools.islice(itertools.chain(), 1)
    parts = gc.get_referents(loader)
    part = parts.pop()
    return _references(part)


_OF_ITS_OWN = _count_own()
