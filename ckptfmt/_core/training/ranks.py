"""Agreement between the processes of one data-parallel job, over any transport.

No rank may wait in an exchange that another one never enters. Everything that can fail on a single rank therefore runs
in `gather`, `together` or `on_rank_0`: the failed rank sends its error in the exchange, and all ranks fail together.

Ranks exchange objects by pickle. All of them run the same program in one job; data from a file is never unpickled here.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from ckptfmt._escaping import describe_error
from ckptfmt.errors import CkptfmtError, HeldError, RankError, SupersededError, UndecidedError

__all__ = ["Exchange", "Ranks", "SingleProcess", "World"]

T = TypeVar("T")


class World(NamedTuple):
    """Rank of this process and number of processes."""

    rank: int
    size: int


class Exchange(Protocol):
    """Transport of messages between the processes of a job. With one process, only `world` is called."""

    def world(self) -> World:
        """Return the place of this process in the job; (0, 1) if there is no job."""

    def all_gather(self, message: bytes) -> Sequence[bytes]:
        """Return the messages of all ranks, in rank order, on every rank."""

    def broadcast(self, message: bytes | None) -> bytes:
        """Return the message of rank 0 on every rank; the others pass None."""

    def maxima(self, values: Sequence[int]) -> Sequence[int]:
        """Return the maximum of each value over all ranks, on every rank. Called at each step, so it must be fast."""


class SingleProcess:
    """`Exchange` of a program with a single process."""

    def world(self) -> World:
        """Return (0, 1)."""
        return World(0, 1)

    def all_gather(self, message: bytes) -> Sequence[bytes]:
        """Return the message itself."""
        return [message]

    def broadcast(self, message: bytes | None) -> bytes:
        """Return the message itself."""
        assert message is not None, "rank 0 passes a message"
        return message

    def maxima(self, values: Sequence[int]) -> Sequence[int]:
        """Return the values themselves."""
        return values


class Ranks:
    """The processes of one job, which succeed or fail together.

    Args:
        exchange: Transport of their messages.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def world(self) -> World:
        """Return the place of this process in the job; (0, 1) if there is no job."""
        return self._exchange.world()

    def gather(self, act: Callable[[], T]) -> list[T] | None:
        """Call a function on every rank, and gather the results on rank 0. If one rank fails, all do.

        All ranks call it. Results must be in host memory: data on another rank's device would be unpickled onto that
        device here.

        Returns:
            On rank 0 the results in rank order, on the others None.

        Raises:
            Exception: What `act` raised on this rank.
            RankError: `act` raised only on other ranks; `SupersededError` or `UndecidedError` if it raised one of
                those.
        """
        rank, size = self.world()
        if size == 1:
            return [act()]
        own = _attempt(act)
        everywhere = self._exchange.all_gather(own.message)
        _raise_if_failed(own, {other: message for other, message in enumerate(everywhere) if other != rank})
        return [_unpack(message) for message in everywhere] if rank == 0 else None

    def together(self, act: Callable[[], T]) -> T:
        """Call a function on every rank, and return the result of this rank. If one rank fails, all do.

        All ranks call it. Results are not exchanged.

        Raises:
            Exception: What `act` raised on this rank.
            RankError: As `gather`.
        """
        results: list[T] = []
        self.gather(lambda: results.append(act()))
        return results[0]

    def on_rank_0(self, act: Callable[[], T]) -> T:
        """Call a function on rank 0, and return its result on every rank. If rank 0 fails, all do.

        All ranks call it.

        Raises:
            Exception: What `act` raised, on rank 0.
            RankError: `act` raised on rank 0, on the others; `SupersededError` or `UndecidedError` if it raised one of
                those.
        """
        rank, size = self.world()
        if size == 1:
            return act()
        own = _attempt(act) if rank == 0 else None
        message = self._exchange.broadcast(own.message if own is not None else None)
        _raise_if_failed(own, {} if rank == 0 else {0: message})
        result: T = own.result if own is not None else _unpack(message)
        return result

    def share(self, value: T) -> T:
        """Return the value of rank 0 on every rank. All ranks call it."""
        return self.on_rank_0(lambda: value)

    def largest(self, *values: int) -> tuple[int, ...]:
        """Return the maximum of each value over all ranks, on every rank. All ranks call it; it is fast."""
        return values if self.world().size == 1 else tuple(self._exchange.maxima(values))

    def barrier(self) -> None:
        """Wait until every rank has called this."""
        self.largest(0)


class _Attempt(NamedTuple):
    """Outcome of a call on this rank, and the message that reports it to the others."""

    result: Any
    error: Exception | None
    message: bytes


class _Failure(NamedTuple):
    """An error as sent to other ranks, which may be unable to unpickle the original."""

    kind: str
    lines: tuple[str, ...]


_ENDING = {error.__name__: error for error in (HeldError, SupersededError, UndecidedError)}
"""Errors whose exit code all ranks must share."""

# The first byte of a message.
_DONE = b"+"
_FAILED = b"-"


def _attempt(act: Callable[[], object]) -> _Attempt:
    try:
        result = act()
        return _Attempt(result, None, _DONE + pickle.dumps(result))
    except Exception as error:  # noqa: BLE001 - raised once all ranks have it
        lines = tuple(map(str, error.args)) if isinstance(error, CkptfmtError) else ()
        lines = lines or (describe_error(error),)
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


def _unpack(message: bytes) -> Any:
    return pickle.loads(message[1:])  # noqa: S301 - from another process of the same job
