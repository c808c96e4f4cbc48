"""The batches of a pass, watched: now and then a fingerprint of one, for a later process to compare its own with."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

import numpy as np
import torch

from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.live_objects.contents import items, size
from ckptfmt._core.torch.live_objects.fingerprints import Sample, fingerprint, take

__all__ = ["HEAD", "BatchMarks", "Head", "Watch", "fields_of", "repeat"]

T = TypeVar("T")
Head = tuple[tuple[str, ...], ...]
"""Of each of the first batches of a pass: its fingerprint, and those of its fields."""

HEAD = 4
"""Of so many batches of a pass the fingerprints are kept as its beginning."""
# A loader that shuffles what it has in a buffer may, by chance, give one right batch out of a wrong buffer.
_RECENT = 8
_STATES = 3  # of so many batches, if those before them do not matter: a state has 10 kB
# Some loaders are a batch ahead: what they draw for one follows from the states before the batches before.
_AHEAD = 2
_SHARE = 0.01
_MAX_FIELDS = 8
_MIN_VALUES = 16


@dataclass(frozen=True)
class BatchMarks:
    """Fingerprints of batches of a pass. Batches are counted from 1.

    Attributes:
        head: Those of its first batches, at most 4, and of their fields.
        recent: Those of batches that came last, by number: at most 8.
        random: States of the global generators before a batch was asked for, by its number, if the loader draws from
            them as it goes along.
    """

    head: Head = ()
    recent: Mapping[int, str] = field(default_factory=dict)
    random: Mapping[int, rng.RandomState] = field(default_factory=dict)

    def comparable(self, *, steady: bool) -> dict[int, str]:
        """Return those that a pass must have again that begins in the same way, by number.

        Args:
            steady: Whether the loader loads a batch when it is asked for it, and not before.
        """
        if not self.random:
            return {**{n: batch[0] for n, batch in enumerate(self.head, 1)}, **self.recent}
        # Up to the first batch everything follows from how the pass began.
        first = {1: self.head[0][0]} if self.head else {}
        ahead = 0 if steady else _AHEAD
        known = {n for n in self.recent if all(k in self.random for k in range(max(n - ahead, 1), n + 1))}
        return {**first, **{n: self.recent[n] for n in known}}


class Watch:
    """Takes marks of the batches that go by: of the first four, and then as often as costs 1% of the time.

    If the loader turns out to draw from the global generators of this process as it goes along, a mark is taken of
    every batch: what it draws depends on what the loop's body draws in between, which is not repeated.

    Args:
        steady: Whether it is known that neither the order nor batches that are loaded ahead depend on such draws.
        marks: The marks so far, of a pass that goes on.
        on_head: Is called once when the first batches have come, or all if there are less, with their fingerprints.
    """

    def __init__(
        self, *, steady: bool = False, marks: BatchMarks | None = None, on_head: Callable[[Head], object] | None = None
    ) -> None:
        marks = marks or BatchMarks()
        self._steady = steady
        self._draws = bool(marks.random)
        self._head: list[tuple[Sample | str, ...]] = list(marks.head)
        self._recent: deque[tuple[int, Sample | str]] = deque(marks.recent.items(), maxlen=_RECENT)
        self._random: deque[tuple[int, rng.RandomState]] = deque(
            marks.random.items(), maxlen=_STATES if steady else _RECENT + _AHEAD
        )
        self._on_head = on_head
        self._due = 0.0

    def batches(self, iterator: Iterator[T], consumed: int) -> Iterator[T]:
        """Yield the batches of an iterator, the first of which has the number `consumed` + 1."""
        for number in count(consumed + 1):
            begun = time.perf_counter()
            marks = number <= HEAD or (self._draws and not self._steady) or begun >= self._due
            marks = marks and self._note_random(number)
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                self._end_head()
                return
            if marks:
                given = time.perf_counter()
                self._take(number, batch)
                done = time.perf_counter()
                self._due = done + (asked - begun + done - given) / _SHARE
            if number == HEAD:
                self._end_head()
            yield batch

    def marks(self) -> BatchMarks:
        """Return the marks. Waits for the devices that the batches are on."""
        recent = {number: _digest(sample) for number, sample in self._recent}
        self._recent = deque(recent.items(), maxlen=_RECENT)
        random = dict(self._random) if self._draws else {}
        return BatchMarks(self.head(), {number: mark for number, mark in recent.items() if mark}, random)

    def head(self) -> Head:
        """Return the fingerprints of the first batches, as far as they have come."""
        head = tuple(tuple(map(_digest, batch)) for batch in self._head)
        self._head = list(head)
        return head

    def _end_head(self) -> None:
        if self._on_head is not None:
            on_head, self._on_head = self._on_head, None
            on_head(self.head())

    def _note_random(self, number: int) -> bool:
        """Note the states of the generators now, and say whether they can be had."""
        try:
            self._random.append((number, rng.capture()))
        except Exception:  # noqa: BLE001 - a device may be gone, and no mark may end the training
            return False
        return True

    def _take(self, number: int, batch: object) -> None:
        if number > 1 and not self._draws:
            try:
                self._draws = not rng.same(self._random[-1][1], rng.capture())
            except Exception:  # noqa: BLE001 - as in _note_random
                return
        try:
            sample = take(batch)
            fields = map(take, fields_of(batch)) if number <= HEAD else ()
            batch_samples = (sample, *fields)
        except Exception:  # noqa: BLE001 - a batch may be anything, and none must end the training
            return
        self._recent.append((number, sample))
        if number == len(self._head) + 1 and number <= HEAD:
            self._head.append(batch_samples)


def repeat(iterator: Iterator[object], times: int, marks: BatchMarks, *, steady: bool) -> tuple[int, int | None]:
    """Load batches once more and drop them.

    Args:
        iterator: The pass, at its beginning.
        times: How many batches.
        marks: The marks of some of them.
        steady: As in `BatchMarks.comparable`.

    Returns:
        How many there were; which was the first that is another one than before, None if none was.
    """
    expected = marks.comparable(steady=steady)
    different: int | None = None
    for number in range(1, times + 1):
        if number in marks.random:
            rng.restore(marks.random[number])
        try:
            batch = next(iterator)
        except StopIteration:
            return number - 1, different
        if different is None and number in expected and _fingerprint(batch) != expected[number]:
            different = number
    return times, different


def fields_of(batch: object) -> list[object]:
    """Return the fields of a batch, such as pictures and labels, of which the one may be noisy and the other not.

    One that has few values is left out: it may be the same by chance.
    """
    count = size(batch)
    if count is None or not 1 < count <= _MAX_FIELDS:
        return []
    return [part for _, part in items(batch) if _values(part) >= _MIN_VALUES]


def _values(part: object) -> int:
    if isinstance(part, torch.Tensor):
        return part.numel()
    return int(part.size) if isinstance(part, np.ndarray) else size(part) or 0


def _digest(sample: Sample | str) -> str:
    """Return a fingerprint; nothing if none can be had."""
    if isinstance(sample, str):
        return sample
    try:
        return sample.digest()
    except Exception:  # noqa: BLE001 - a batch may be anything, and none must end the training
        return ""


def _fingerprint(batch: object) -> str | None:
    try:
        return fingerprint(batch)
    except Exception:  # noqa: BLE001 - it could be taken once: this is another one
        return None
