"""Sources of batches for loaders without attributes: a list of batches, or another iterator."""

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

IN_PLACE = "the list of batches, changed in place between epochs,"
"""Description of a loader whose order depends on its previous order."""

_BATCHES = (list, tuple, torch.Tensor, np.ndarray)
_THROUGH_OTHERS = (zip, map, filter, enumerate, itertools.chain, itertools.islice, itertools.starmap)
_ELEMENTS = 64
_MAX_DEPTH = 4


def order_of(loader: object) -> str:
    """Return a fingerprint of all batches of a list, tuple, tensor or array; empty for any other loader."""
    if type(loader) not in _BATCHES:
        return ""
    try:
        return fingerprint(loader, _ELEMENTS)
    except Exception:  # noqa: BLE001 - batches are arbitrary objects, and must not end training
        return ""


def held_source(loader: object) -> str | None:
    """Return the name of an iterator under the loader that other code also holds, so that it may continue; or None.

    `islice(endless, n)` has such an iterator; `zip(one, other)` and `enumerate(loader)` do not: they own theirs.
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
    """Return the reference count, as above, of an iterator that only a loader holds."""
    loader: Any = itertools.islice(itertools.chain(), 1)
    parts = gc.get_referents(loader)
    part = parts.pop()
    return _references(part)


_OF_ITS_OWN = _count_own()
