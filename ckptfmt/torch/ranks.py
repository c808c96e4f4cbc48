"""What the processes of one data-parallel job tell each other. With one process, nothing is sent.

Objects travel between ranks by pickle, inside `torch.distributed`. That is the memory of one job, which runs one
program; nothing that comes from a file is ever unpickled here.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

__all__ = ["World", "barrier", "gather", "largest", "share", "world"]

T = TypeVar("T")


class World(NamedTuple):
    """Which process this is, and of how many."""

    rank: int
    size: int


def world() -> World:
    """Return the place of this process in the default process group; (0, 1) if there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return World(0, 1)
    return World(dist.get_rank(), dist.get_world_size())


def gather(value: T) -> list[T] | None:
    """Bring the values of all ranks to rank 0. To be called by all of them.

    Tensors in a value must lie in CPU memory: one of another rank's device would be put on that device here.

    Returns:
        On rank 0 the values in the order of ranks, on the others None.
    """
    rank, size = world()
    if size == 1:
        return [value]
    values: list[T | None] = [None] * size
    # Not gather_object: each backend has all_gather, and what is gathered is small.
    dist.all_gather_object(values, value)
    return values if rank == 0 else None  # type: ignore[return-value]  # all_gather_object has filled it


def share(value: T) -> T:
    """Return the value that rank 0 was given, on every rank. To be called by all of them."""
    if world().size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def largest(value: int) -> int:
    """Return the largest of the values of all ranks, on each of them. To be called by all; it is quick."""
    if world().size == 1:
        return value
    on_device = "gloo" not in str(dist.get_backend()) and torch.cuda.is_available()
    values = torch.tensor([value], device="cuda" if on_device else "cpu")
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return int(values.item())


def barrier() -> None:
    """Wait until every rank has come here."""
    share(None)
