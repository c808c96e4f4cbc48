"""Python's cyclic garbage collector, and where it only costs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collector_paused"]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector while objects are made by the ten thousand, none of them garbage.

    It would look through all objects of the process again and again, a model's included, and find nothing: with
    30,000 tensors that takes longer than everything else. Reference counting goes on.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
