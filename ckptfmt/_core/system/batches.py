"""Small items of work joined into batches: to hand one to a thread costs as much as to work on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["batches"]

Item = TypeVar("Item")


def batches(items: Iterable[Item], nbytes: Callable[[Item], int], enough: int) -> Iterator[list[Item]]:
    """Yield items in batches that are worth a turn of a thread.

    Args:
        items: What is to be worked on.
        nbytes: Returns how many bytes of work an item is.
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
