"""Pauses of Python's cyclic garbage collector, where it has nothing to collect."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collector_paused"]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector while tens of thousands of objects are created, none of them garbage.

    The collector would traverse all objects of the process, a model's included, again and again, and find nothing. With
    30,000 tensors that takes longer than all other work. Reference counting continues.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
