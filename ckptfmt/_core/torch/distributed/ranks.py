"""What the processes of one data-parallel job tell each other. With one process, nothing is sent.

No rank may be left waiting in an exchange that another one never enters. So whatever can fail on one rank alone is done
by `gather`, `together` or `on_rank_0`: the rank that fails takes part in the exchange with its error, and all ranks
fail together.

Objects travel between ranks by pickle, as in `torch.distributed` itself. That is the memory of one job, which runs one
program; nothing that comes from a file is ever unpickled here.
"""

from __future__ import annotations

import pickle
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from ckptfmt._core.training.failures import HeldError, RankError, SupersededError, UndecidedError
from ckptfmt.errors import CkptfmtError

__all__ = ["World", "barrier", "gather", "largest", "on_rank_0", "share", "together", "world"]

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


def gather(act: Callable[[], T]) -> list[T] | None:
    """Do something on every rank, and bring the results to rank 0. If it fails on any rank, it fails on all of them.

    To be called by all ranks. Tensors in a result must lie in CPU memory: one of another rank's device would be put on
    that device here.

    Returns:
        On rank 0 the results in the order of ranks, on the others None.

    Raises:
        Exception: What `act` raised on this rank.
        RankError: It raised on another rank only; `SupersededError` or `UndecidedError` if that is what it raised.
    """
    rank, size = world()
    if size == 1:
        return [act()]
    own = _attempt(act)
    everywhere = _all_gather(own.message)
    _raise_if_failed(own, {other: message for other, message in enumerate(everywhere) if other != rank})
    return [_unpack(message) for message in everywhere] if rank == 0 else None


def together(act: Callable[[], T]) -> T:
    """Do something on every rank, and return the result of this one. If it fails on any rank, it fails on all of them.

    To be called by all ranks. Results stay where they are made.

    Raises:
        Exception: What `act` raised on this rank.
        RankError: As `gather`.
    """
    results: list[T] = []
    gather(lambda: results.append(act()))
    return results[0]


def on_rank_0(act: Callable[[], T]) -> T:
    """Do something on rank 0, and return the result on every rank. If it fails there, it fails on all of them.

    To be called by all ranks.

    Raises:
        Exception: What `act` raised, on rank 0.
        RankError: The same on the others; `SupersededError` or `UndecidedError` if that is what it raised.
    """
    rank, size = world()
    if size == 1:
        return act()
    own = _attempt(act) if rank == 0 else None
    message = _broadcast(own.message if own is not None else None)
    _raise_if_failed(own, {} if rank == 0 else {0: message})
    result: T = own.result if own is not None else _unpack(message)
    return result


def share(value: T) -> T:
    """Return the value that rank 0 was given, on every rank. To be called by all of them."""
    return on_rank_0(lambda: value)


def largest(*values: int) -> tuple[int, ...]:
    """Return the largest of each of the values over all ranks, on every rank. To be called by all; it is quick."""
    if world().size == 1:
        return values
    exchanged = torch.tensor(values, device=_device())
    dist.all_reduce(exchanged, dist.ReduceOp.MAX)
    most = tuple(int(it) for it in exchanged.tolist())
    waited_for = [weakref.ref(exchanged)]
    del exchanged
    _wait_until_let_go(waited_for)
    return most


def barrier() -> None:
    """Wait until every rank has come here."""
    largest(0)


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


class _Attempt(NamedTuple):
    """What came of an action on this rank, and the message that tells the other ranks of it."""

    result: Any
    error: Exception | None
    message: bytes


class _Failure(NamedTuple):
    """An error as it goes to other ranks, which need not be able to unpickle it."""

    kind: str
    lines: tuple[str, ...]


_ENDING = {error.__name__: error for error in (HeldError, SupersededError, UndecidedError)}
"""Errors with an exit code that all ranks must end with."""

# The first byte of a message.
_DONE = b"+"
_FAILED = b"-"


def _attempt(act: Callable[[], object]) -> _Attempt:
    try:
        result = act()
        return _Attempt(result, None, _DONE + pickle.dumps(result))
    except Exception as error:  # noqa: BLE001 - it is raised once all ranks know
        lines = tuple(map(str, error.args)) if isinstance(error, CkptfmtError) else ()
        lines = lines or (f"{type(error).__name__}: {error}",)
        return _Attempt(None, error, _FAILED + pickle.dumps(_Failure(type(error).__name__, lines)))


def _raise_if_failed(own: _Attempt | None, others: Mapping[int, bytes]) -> None:
    failures = {rank: _unpack(message) for rank, message in others.items() if message.startswith(_FAILED)}
    for rank, failure in failures.items():
        if failure.kind in _ENDING:
            raise _ENDING[failure.kind](f"rank {rank}: {failure.lines[0]}", details=failure.lines[1:])
    if own is not None and own.error is not None:
        raise own.error
    for rank, failure in failures.items():
        raise RankError(f"rank {rank}: {failure.lines[0]}", *failure.lines[1:])


def _all_gather(own: bytes) -> list[bytes]:
    """Return the messages of all ranks."""
    size = world().size
    lengths = [torch.zeros(1, dtype=torch.int64, device=_device()) for _ in range(size)]
    length = torch.tensor([len(own)], device=_device())
    dist.all_gather(lengths, length)
    padded = _to_tensor(own.ljust(max(int(it) for it in lengths)))
    messages = [torch.empty_like(padded) for _ in range(size)]
    # Not gather: each backend has all_gather, and what is gathered is small.
    dist.all_gather(messages, padded)
    received = [_to_bytes(it)[: int(its)] for it, its in zip(messages, lengths, strict=True)]
    exchanged = [weakref.ref(it) for it in (length, padded, *lengths, *messages)]
    del length, padded, lengths, messages
    _wait_until_let_go(exchanged)
    return received


def _broadcast(own: bytes | None) -> bytes:
    """Return the message of rank 0, which alone gives one."""
    length = torch.tensor([0 if own is None else len(own)], device=_device())
    dist.broadcast(length, src=0)
    message = _to_tensor(bytes(int(length)) if own is None else own)
    dist.broadcast(message, src=0)
    received = _to_bytes(message)
    exchanged = [weakref.ref(length), weakref.ref(message)]
    del length, message
    _wait_until_let_go(exchanged)
    return received


def _to_tensor(message: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8).to(_device())


def _to_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()


def _unpack(message: bytes) -> Any:
    return pickle.loads(message[1:])  # noqa: S301 - from another process of this very job
