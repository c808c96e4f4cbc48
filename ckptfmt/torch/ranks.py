"""What the processes of one data-parallel job tell each other. With one process, nothing is sent.

Objects travel between ranks by pickle, as in `torch.distributed` itself. That is the memory of one job, which runs one
program; nothing that comes from a file is ever unpickled here.
"""

from __future__ import annotations

import pickle
import time
import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

__all__ = ["World", "barrier", "gather", "largest", "share", "world"]

T = TypeVar("T")

_MOMENT_SECONDS = 0.0002
_PATIENCE_SECONDS = 1.0


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
    own = _to_tensor(value)
    lengths = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(size)]
    length = torch.tensor([len(own)], device=own.device)
    dist.all_gather(lengths, length)
    longest = max(int(it) for it in lengths)
    padded = torch.cat([own, own.new_zeros(longest - len(own))])
    values = [torch.empty_like(padded) for _ in range(size)]
    # Not gather: each backend has all_gather, and what is gathered is small.
    dist.all_gather(values, padded)
    gathered: list[T] | None = None
    if rank == 0:
        gathered = [_from_tensor(it[: int(its)]) for it, its in zip(values, lengths, strict=True)]
    exchanged = [weakref.ref(it) for it in (length, padded, *lengths, *values)]
    del length, padded, lengths, values
    _wait_until_let_go(exchanged)
    return gathered


def share(value: T) -> T:
    """Return the value that rank 0 was given, on every rank. To be called by all of them."""
    rank, size = world()
    if size == 1:
        return value
    box = _to_tensor(value if rank == 0 else None)
    length = torch.tensor([len(box)], device=box.device)
    dist.broadcast(length, src=0)
    if rank != 0:
        box = box.new_empty(int(length))
    dist.broadcast(box, src=0)
    shared: T = _from_tensor(box)
    exchanged = [weakref.ref(length), weakref.ref(box)]
    del length, box
    _wait_until_let_go(exchanged)
    return shared


def largest(value: int) -> int:
    """Return the largest of the values of all ranks, on each of them. To be called by all; it is quick."""
    if world().size == 1:
        return value
    values = torch.tensor([value], device=_device())
    dist.all_reduce(values, dist.ReduceOp.MAX)
    most = int(values.item())
    exchanged = [weakref.ref(values)]
    del values
    _wait_until_let_go(exchanged)
    return most


def barrier() -> None:
    """Wait until every rank has come here."""
    share(None)


def _wait_until_let_go(exchanged: Iterable[weakref.ref[torch.Tensor]]) -> None:
    """Wait until nobody holds the tensors of an exchange any more.

    The threads of gloo let go of them some time after the exchange, for which they need the interpreter's lock. A
    process group that is destroyed meanwhile has that lock and waits for these threads: for ever. It is enough to end
    a program right after its last exchange.
    """
    if not _by_gloo():
        return
    latest = time.monotonic() + _PATIENCE_SECONDS
    while any(it() is not None for it in exchanged) and time.monotonic() < latest:
        time.sleep(_MOMENT_SECONDS)


def _by_gloo() -> bool:
    return "gloo" in str(dist.get_backend())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() and not _by_gloo() else "cpu")


def _to_tensor(value: object) -> torch.Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8).to(_device())


def _from_tensor(data: torch.Tensor) -> Any:
    return pickle.loads(data.cpu().numpy().tobytes())  # noqa: S301 - from another process of this very job
