"""The batches of a pass, watched: now and then a fingerprint of one, for a later process to compare its own with."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.live_objects.fingerprints import Sample, fingerprint, take

__all__ = ["BatchMark", "Watch", "repeat"]

T = TypeVar("T")

_TRAIL = 3
_SHARE = 0.01
_ALWAYS = 2


@dataclass(frozen=True)
class BatchMark:
    """The fingerprint of one batch of a pass.

    Attributes:
        number: Which batch, counted from 1.
        fingerprint: Its fingerprint.
        random: States of the global generators before the last batches up to this one were asked for, if the loader
            draws from them. Several, since some loaders are a batch ahead.
    """

    number: int
    fingerprint: str
    random: tuple[rng.RandomState, ...] = ()


class Watch:
    """Takes marks of the batches that go by: of the first two, and then as often as costs 1% of the time.

    If the loader turns out to draw from the global generators of this process as it goes along, a mark is taken of
    every batch: what it draws depends on what the loop's body draws in between, which is not repeated.

    Args:
        steady: Whether it is known that neither the order nor batches that are loaded ahead depend on such draws.
        mark: The last mark, of a pass that goes on.
    """

    def __init__(self, *, steady: bool = False, mark: BatchMark | None = None) -> None:
        self._steady = steady
        self._mark = mark
        self._draws = mark is not None and bool(mark.random)
        self._taken: tuple[int, Sample, tuple[rng.RandomState, ...]] | None = None
        self._trail: deque[rng.RandomState] = deque(mark.random if mark is not None else (), maxlen=_TRAIL)
        self._due = 0.0

    def batches(self, iterator: Iterator[T], consumed: int) -> Iterator[T]:
        """Yield the batches of an iterator, the first of which has the number `consumed` + 1."""
        for number in count(consumed + 1):
            begun = time.perf_counter()
            marks = number <= _ALWAYS or (self._draws and not self._steady) or begun >= self._due
            marks = marks and self._note_random()
            if not marks:
                self._trail.clear()
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            if marks:
                given = time.perf_counter()
                self._take(number, batch)
                done = time.perf_counter()
                self._due = done + (asked - begun + done - given) / _SHARE
            yield batch

    def mark(self) -> BatchMark | None:
        """Return the last mark; None if there is none. Waits for the device that the batch is on."""
        if self._taken is not None:
            number, sample, random = self._taken
            self._taken = None
            try:
                self._mark = BatchMark(number, sample.digest(), random)
            except Exception:  # noqa: BLE001 - a batch may be anything, and none must end the training
                self._mark = None
        return self._mark

    def _note_random(self) -> bool:
        """Note the states of the generators now, and say whether they can be had."""
        try:
            self._trail.append(rng.capture())
        except Exception:  # noqa: BLE001 - a device may be gone, and no mark may end the training
            return False
        return True

    def _take(self, number: int, batch: object) -> None:
        if number > 1 and not self._draws:
            try:
                self._draws = not rng.same(self._trail[-1], rng.capture())
            except Exception:  # noqa: BLE001 - as in _note_random
                return
        try:
            # Up to the first batch everything follows from how the pass began.
            self._taken = number, take(batch), tuple(self._trail) if self._draws else ()
        except Exception:  # noqa: BLE001 - a batch may be anything, and none must end the training
            self._taken = None


def repeat(iterator: Iterator[object], times: int, mark: BatchMark | None) -> tuple[int, bool]:
    """Load batches once more and drop them.

    Args:
        iterator: The pass, at its beginning.
        times: How many batches.
        mark: The mark of one of them.

    Returns:
        How many there were; whether the marked one was the same.
    """
    same = True
    first = mark.number - len(mark.random) + 1 if mark is not None else 0
    for number in range(1, times + 1):
        if mark is not None and first <= number <= mark.number and mark.random:
            rng.restore(mark.random[number - first])
        try:
            batch = next(iterator)
        except StopIteration:
            return number - 1, same
        if mark is not None and number == mark.number:
            same = _matches(batch, mark)
    return times, same


def _matches(batch: object, mark: BatchMark) -> bool:
    try:
        return fingerprint(batch) == mark.fingerprint
    except Exception:  # noqa: BLE001 - it could be taken once: this is another one
        return False
