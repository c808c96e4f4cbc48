"""What ranks do together: each gets the same outcome, and none is left waiting for one that failed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch.distributed as dist

from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt.errors import RankError, StateError, SupersededError, UndecidedError
from tests.torch.job import run_job

pytestmark = pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")


class UnpicklableError(Exception):
    """An error that cannot be made again from its arguments."""

    def __init__(self, one: str, another: str) -> None:
        super().__init__(one + another)
        self.open = (number for number in range(3))


ERRORS: dict[str, Callable[[], Exception]] = {
    "ours": lambda: StateError("net.weight", "is odd"),
    "unpicklable": lambda: UnpicklableError("a", "b"),
    "memory": MemoryError,
    "superseded": lambda: SupersededError("taken over"),
    "undecided": lambda: UndecidedError("unreadable"),
}


def raised(act: Callable[[], object]) -> tuple[str, str]:
    try:
        act()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def exchange(rank: int) -> list[object]:
    """Go through every way in which an exchange can end, one after the other."""
    outcomes: list[object] = [
        ranks.gather(lambda: {"rank": rank}),
        ranks.gather(lambda: "x" * (1 + 1000 * rank)),
        ranks.on_rank_0(lambda: ["from", rank]),
        ranks.share(rank),
        ranks.largest(rank, -rank, 7),
    ]
    for make in ERRORS.values():
        for failing in ([0], [1], [0, 1]):

            def act(make: Callable[[], Exception] = make, failing: list[int] = failing) -> int:
                if rank in failing:
                    raise make()
                return rank

            outcomes += [raised(partial(ranks.gather, act))]
            if 0 in failing:
                outcomes += [raised(partial(ranks.on_rank_0, act))]
    outcomes.append(raised(lambda: ranks.gather(lambda: (number for number in range(rank + 1)))))
    outcomes.append(ranks.largest(rank))
    return outcomes


def test_all_ranks_get_the_same_outcome(tmp_path: Path, context: ForkServerContext) -> None:
    first, second = run_job(context, tmp_path, exchange)
    assert (first.code, second.code) == (0, 0), (first, second)
    assert first.value[:5] == [[{"rank": 0}, {"rank": 1}], ["x", "x" * 1001], ["from", 0], 0, (1, 0, 7)]
    assert second.value[:5] == [None, None, ["from", 0], 0, (1, 0, 7)]
    assert first.value[-1] == second.value[-1] == (1,)
    place = 5
    for name, make in ERRORS.items():
        error = make()
        own = (type(error).__name__, str(error))
        ending = name in ("superseded", "undecided")
        told = own[0] if ending else RankError.__name__
        text = own[1] if name != "memory" else "MemoryError"
        for rank_0, rank_1 in ((own, told), (told, own), (own, own)):
            for mine, found in ((rank_0, first.value[place]), (rank_1, second.value[place])):
                if mine is own and not ending:
                    assert found == own
                else:
                    assert found[0] == told
                    assert text in found[1]
            place += 1
            if rank_0 is own:
                assert first.value[place] == own
                assert second.value[place][0] == told
                assert second.value[place][1].startswith("rank 0: ")
                place += 1
    assert first.value[place][0] == second.value[place][0] == "TypeError"  # a generator cannot be pickled


def test_one_process_exchanges_nothing() -> None:
    assert ranks.gather(lambda: 3) == [3]
    assert ranks.on_rank_0(lambda: 4) == 4
    assert ranks.largest(5, 6) == (5, 6)
    assert ranks.share("x") == "x"
    assert raised(lambda: ranks.gather(fail)) == raised(lambda: ranks.on_rank_0(fail)) == ("MemoryError", "")


def fail() -> None:
    raise MemoryError
