"""The loop of a training in NumPy: its generators, and its place in the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from ckptfmt._core.training.loop.progress import CycleProgress, Progress, RandomState

T = TypeVar("T")


class GlobalGenerator:
    """NumPy's global generator."""

    def capture(self) -> RandomState:
        return dict(np.random.get_state(legacy=False))

    def restore(self, state: RandomState) -> None:
        np.random.set_state(state)

    def same(self, one: RandomState, other: RandomState) -> bool:
        return repr(one) == repr(other)


@dataclass(frozen=True)
class EpochPosition:
    consumed: int
    epoch_random: RandomState
    pass_random: RandomState


class Repetition:
    """Comes to its place in a pass by repetition: the pass begins as it began, and the batches that are done are
    dropped."""

    def __init__(self, *, allow_mismatch: bool) -> None:
        self._pass_random: RandomState | None = None
        self._begun = False

    def begin(self, loader: Iterable[T], then: bool | None = None) -> Iterator[T]:
        self._pass_random, self._begun = GlobalGenerator().capture(), True
        return iter(loader)

    def resume(self, loader: Iterable[T], position: EpochPosition, now: bool) -> tuple[Iterator[T], int]:
        GlobalGenerator().restore(position.pass_random)
        return islice(self.begin(loader), position.consumed, None), position.consumed

    def end(self) -> None:
        self._pass_random = None

    def finish(self) -> None:
        pass

    def state(self) -> bool | None:
        return self._begun or None

    def position(self, epoch_random: RandomState, consumed: int) -> EpochPosition | None:
        return None if self._pass_random is None else EpochPosition(consumed, epoch_random, self._pass_random)


def progress_tree(progress: Progress[bool, EpochPosition]) -> dict[str, Any]:
    return asdict(progress)


def progress_of(tree: Mapping[str, Any]) -> Progress[bool, EpochPosition]:
    cycles = tuple(CycleProgress(it["rounds"], it["loader"], _position_of(it["position"])) for it in tree["cycles"])
    return Progress(tree["step"], tree["epoch"], tree["loader"], _position_of(tree["position"]), tree["loop"], cycles)


def _position_of(tree: Mapping[str, Any] | None) -> EpochPosition | None:
    return None if tree is None else EpochPosition(**tree)
