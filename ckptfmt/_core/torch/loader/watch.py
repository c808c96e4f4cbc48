"""The batches of a pass, watched: fingerprints of some of them, for a later process to compare its own with."""

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

# A loader that shuffles what it has in a buffer may, by chance, give one right batch out of a wrong buffer.
_COMPARED = 8
_AHEAD = 2
_SHARE = 0.01
_ALWAYS = 2


@dataclass(frozen=True)
class BatchMark:
    """The fingerprints of one batch of a pass, and of those just before it.

    Attributes:
        number: Which batch, counted from 1.
        fingerprints: Those of the last batches up to this one.
        random: States of the global generators before the last batches up to this one were asked for, if the loader
            draws from them. More than there are fingerprints, since some loaders are a batch or two ahead.
    """

    number: int
    fingerprints: tuple[str, ...]
    random: tuple[rng.RandomState, ...] = ()

    @property
    def first(self) -> int:
        """Number of the first batch that has a fingerprint."""
        return self.number - len(self.fingerprints) + 1


class _Fingerprint:
    """A fingerprint that is computed when it is asked for: that may wait for a device."""

    def __init__(self, made_of: Sample | str) -> None:
        self._made_of = made_of

    def text(self) -> str:
        if not isinstance(self._made_of, str):
            self._made_of = self._made_of.digest()
        return self._made_of


class Watch:
    """Takes marks of the batches that go by: of the first two, and then as often as costs 1% of the time.

    If the loader turns out to draw from the global generators of this process as it goes along, a mark is taken of
    every batch: what it draws depends on what the loop's body draws in between, which is not repeated. Several batches
    are then compared: if what it gives depends on draws before them, as with a shuffle buffer, they are not the same.

    Args:
        steady: Whether it is known that neither the order nor batches that are loaded ahead depend on such draws.
        mark: The last mark, of a pass that goes on.
    """

    def __init__(self, *, steady: bool = False, mark: BatchMark | None = None) -> None:
        self._steady = steady
        self._mark = mark
        self._draws = mark is not None and bool(mark.random)
        self._taken: tuple[int, tuple[_Fingerprint, ...], tuple[rng.RandomState, ...]] | None = None
        # Of consecutive batches, up to the last one that was asked for.
        self._fingerprints: deque[_Fingerprint] = deque(maxlen=_COMPARED)
        self._trail: deque[rng.RandomState] = deque(maxlen=_COMPARED + _AHEAD)
        self._due = 0.0

    def batches(self, iterator: Iterator[T], consumed: int) -> Iterator[T]:
        """Yield the batches of an iterator, the first of which has the number `consumed` + 1."""
        if self._mark is not None and self._mark.number == consumed:
            self._fingerprints.extend(map(_Fingerprint, self._mark.fingerprints))
            self._trail.extend(self._mark.random)
        for number in count(consumed + 1):
            begun = time.perf_counter()
            marks = number <= _ALWAYS or (self._draws and not self._steady) or begun >= self._due
            marks = marks and self._note_random()
            if not marks:
                self._trail.clear()
                self._fingerprints.clear()
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
            number, fingerprints, random = self._taken
            self._taken = None
            try:
                self._mark = BatchMark(number, tuple(it.text() for it in fingerprints), random)
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
                self._fingerprints.clear()
                return
        try:
            self._fingerprints.append(_Fingerprint(take(batch)))
        except Exception:  # noqa: BLE001 - a batch may be anything, and none must end the training
            self._taken = None
            self._fingerprints.clear()
            return
        self._taken = number, self._comparable(number), tuple(self._trail) if self._draws else ()

    def _comparable(self, number: int) -> tuple[_Fingerprint, ...]:
        """Return the fingerprints of the last batches for which all states are known that they may follow from."""
        since_first = len(self._trail) == number
        if self._draws and not since_first:  # else everything follows from how the pass began
            return tuple(self._fingerprints)[-max(len(self._trail) - _AHEAD, 1) :]
        return tuple(self._fingerprints)


def repeat(iterator: Iterator[object], times: int, mark: BatchMark | None) -> tuple[int, int | None]:
    """Load batches once more and drop them.

    Args:
        iterator: The pass, at its beginning.
        times: How many batches.
        mark: The mark of some of them.

    Returns:
        How many there were; the number of the first one that was not as marked, None if there is none.
    """
    other = None
    first = mark.number - len(mark.random) + 1 if mark is not None else 0
    for number in range(1, times + 1):
        if mark is not None and first <= number <= mark.number and mark.random:
            rng.restore(mark.random[number - first])
        try:
            batch = next(iterator)
        except StopIteration:
            return number - 1, other
        if mark is not None and other is None and mark.first <= number <= mark.number:
            other = None if _matches(batch, mark.fingerprints[number - mark.first]) else number
    return times, other


def _matches(batch: object, wanted: str) -> bool:
    try:
        return fingerprint(batch) == wanted
    except Exception:  # noqa: BLE001 - it could be taken once: this is another one
        return False
