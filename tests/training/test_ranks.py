"""Ranks agree over whatever carries their messages: here, threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckptfmt._core.training.ranks import Ranks, SingleProcess, World
from ckptfmt.errors import CkptfmtError, HeldError, RankError, SupersededError, UndecidedError

SIZE = 3


class Table:
    """Where the threads of one job lay down their messages."""

    def __init__(self) -> None:
        self.messages: list[object] = [None] * SIZE
        self.barrier = threading.Barrier(SIZE, timeout=30)

    def exchange(self, rank: int, message: object) -> list[object]:
        self.messages[rank] = message
        self.barrier.wait()
        everywhere = list(self.messages)
        self.barrier.wait()
        return everywhere


class ThreadExchange:
    def __init__(self, rank: int, table: Table) -> None:
        self._rank = rank
        self._table = table

    def world(self) -> World:
        return World(self._rank, SIZE)

    def all_gather(self, message: bytes) -> Sequence[bytes]:
        return [it for it in self._table.exchange(self._rank, message) if isinstance(it, bytes)]

    def broadcast(self, message: bytes | None) -> bytes:
        assert (message is None) == (self._rank != 0)
        first = self._table.exchange(self._rank, message)[0]
        assert isinstance(first, bytes)
        return first

    def maxima(self, values: Sequence[int]) -> Sequence[int]:
        everywhere = [it for it in self._table.exchange(self._rank, tuple(values)) if isinstance(it, tuple)]
        return [max(column) for column in zip(*everywhere, strict=True)]


def job(act: Callable[[Ranks], object]) -> list[object]:
    """Do something on every rank; return what came of it on each: a result or an error."""

    def run(rank: int) -> object:
        try:
            return act(Ranks(ThreadExchange(rank, table)))
        except Exception as error:
            return error

    table = Table()
    with ThreadPoolExecutor(SIZE) as pool:
        return list(pool.map(run, range(SIZE)))


def failing_on(rank: int, error: Exception) -> Callable[[Ranks], Callable[[], int]]:
    def make(ranks: Ranks) -> Callable[[], int]:
        def act() -> int:
            if ranks.world().rank == rank:
                raise error
            return ranks.world().rank

        return act

    return make


def test_results_come_to_rank_0_or_stay_or_go_to_all() -> None:
    assert job(lambda ranks: ranks.gather(lambda: f"of {ranks.world().rank}")) == [["of 0", "of 1", "of 2"], None, None]
    assert job(lambda ranks: ranks.together(lambda: ranks.world().rank)) == [0, 1, 2]
    assert job(lambda ranks: ranks.on_rank_0(lambda: ["from", ranks.world().rank])) == [["from", 0]] * SIZE
    assert job(lambda ranks: ranks.share(ranks.world().rank)) == [0] * SIZE
    assert job(lambda ranks: ranks.largest(ranks.world().rank, -ranks.world().rank)) == [(2, 0)] * SIZE


@pytest.mark.parametrize("rank", range(SIZE))
def test_if_one_fails_all_fail_and_none_waits(rank: int) -> None:
    error = MemoryError("no more")
    make = failing_on(rank, error)
    ended = job(lambda ranks: ranks.together(make(ranks)))
    assert ended[rank] is error
    for other in set(range(SIZE)) - {rank}:
        assert type(ended[other]) is RankError
        assert f"rank {rank}" in str(ended[other])
        assert type(error).__name__ in str(ended[other])


@pytest.mark.parametrize("kind", [SupersededError, UndecidedError, HeldError])
def test_errors_with_an_exit_code_end_all_ranks_alike(kind: type[CkptfmtError]) -> None:
    make = failing_on(0, kind("look first"))
    for ended in (job(lambda ranks: ranks.on_rank_0(make(ranks))), job(lambda ranks: ranks.gather(make(ranks)))):
        assert [type(it) for it in ended] == [kind] * SIZE


def test_what_cannot_be_sent_fails_on_all_ranks() -> None:
    ended = job(lambda ranks: ranks.on_rank_0(lambda: threading.Lock()))
    assert [type(it) for it in ended] == [TypeError, RankError, RankError]


def test_a_single_process_exchanges_nothing() -> None:
    ranks = Ranks(SingleProcess())
    lock = threading.Lock()  # nothing could send it
    assert ranks.gather(lambda: lock) == [lock]
    assert ranks.on_rank_0(lambda: lock) is lock
    assert ranks.largest(4, 5) == (4, 5)
    with pytest.raises(MemoryError):
        ranks.together(failing_on(0, MemoryError())(ranks))
