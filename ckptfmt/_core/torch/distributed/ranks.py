"""The ranks of the default process group of `torch.distributed`."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist

from ckptfmt._core.training.ranks import Ranks, World

__all__ = ["TorchExchange", "ranks"]

_MOMENT_SECONDS = 0.0002
_PATIENCE_SECONDS = 1.0


class TorchExchange:
    """Exchanges messages over the default process group with any backend (see `training.ranks.Exchange`)."""

    def world(self) -> World:
        """Return the place of this process in the process group; (0, 1) if there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return World(0, 1)
        return World(dist.get_rank(), dist.get_world_size())

    def all_gather(self, message: bytes) -> Sequence[bytes]:
        """See `training.ranks.Exchange.all_gather`."""
        size = self.world().size
        lengths = [torch.zeros(1, dtype=torch.int64, device=_device()) for _ in range(size)]
        length = torch.tensor([len(message)], device=_device())
        dist.all_gather(lengths, length)
        padded = _to_tensor(message.ljust(max(int(it) for it in lengths)))
        messages = [torch.empty_like(padded) for _ in range(size)]
        # Not gather: every backend has all_gather, and the messages are small.
        dist.all_gather(messages, padded)
        received = [_to_bytes(it)[: int(its)] for it, its in zip(messages, lengths, strict=True)]
        exchanged = [weakref.ref(it) for it in (length, padded, *lengths, *messages)]
        del length, padded, lengths, messages
        _wait_until_released(exchanged)
        return received

    def broadcast(self, message: bytes | None) -> bytes:
        """See `training.ranks.Exchange.broadcast`."""
        length = torch.tensor([0 if message is None else len(message)], device=_device())
        dist.broadcast(length, src=0)
        sent = _to_tensor(bytes(int(length)) if message is None else message)
        dist.broadcast(sent, src=0)
        received = _to_bytes(sent)
        exchanged = [weakref.ref(length), weakref.ref(sent)]
        del length, sent
        _wait_until_released(exchanged)
        return received

    def maxima(self, values: Sequence[int]) -> Sequence[int]:
        """See `training.ranks.Exchange.maxima`."""
        exchanged = torch.tensor(values, device=_device())
        dist.all_reduce(exchanged, dist.ReduceOp.MAX)
        maxima = [int(it) for it in exchanged.tolist()]
        waited_for = [weakref.ref(exchanged)]
        del exchanged
        _wait_until_released(waited_for)
        return maxima


ranks = Ranks(TorchExchange())
"""Ranks of this process's job."""


def _wait_until_released(exchanged: Iterable[weakref.ref[torch.Tensor]]) -> None:
    """Wait until the tensors of an exchange are released.

    gloo's threads release them some time after the exchange, and need the GIL for it. If the process group is destroyed
    in
    the meantime, it holds the GIL while it waits for these threads: a deadlock. A program that exits right after its
    last
    exchange is enough to cause it.
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


def _to_tensor(message: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8).to(_device())


def _to_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()
