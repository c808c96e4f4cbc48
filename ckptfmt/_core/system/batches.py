"""Batches of small work items: handing an item to a thread costs as much as the work itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["batches"]

Item = TypeVar("Item")


def batches(items: Iterable[Item], nbytes: Callable[[Item], int], enough: int) -> Iterator[list[Item]]:
    """Yield items in batches large enough for a thread.

    Args:
        items: The work items.
        nbytes: Returns the size of an item in bytes.
        enough: Bytes that end a batch. Only the last one may have fewer.
    """
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += nbytes(item)
        if size >= enough:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
