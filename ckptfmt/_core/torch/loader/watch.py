"""Fingerprints of some batches of a pass, for a later process to compare its own with."""

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
from ckptfmt._core.torch.loader.repetition import Rows, RowSamples, joined, row_digests, rows_of

__all__ = ["HEAD", "BatchMarks", "Head", "Watch", "fields_of", "repeat"]

T = TypeVar("T")
Head = tuple[tuple[str, ...], ...]
"""Fingerprints of each of the first batches of a pass: of the batch, and of its fields."""

HEAD = 4
"""Number of batches whose fingerprints form the beginning of a pass."""
# A loader with a shuffle buffer may, by chance, return one right batch from a wrong buffer.
_RECENT = 8
_STATES = 3  # number of batches with states, if earlier batches do not matter: a state takes 10 kB
# Some loaders are a batch ahead: their draws for a batch depend on the states before earlier batches.
_AHEAD = 2
_SHARE = 0.01
_MAX_FIELDS = 8
_MIN_VALUES = 16


@dataclass(frozen=True)
class BatchMarks:
    """Fingerprints of batches of a pass. Batches are counted from 1.

    Attributes:
        head: Fingerprints of its first batches, at most 4, and of their fields.
        recent: Fingerprints of its latest batches, at most 8, by number.
        random: States of the global generators before the request of a batch, by its number, if the loader draws from
            them during the pass.
        rows: Digests of rows of its latest batches, if the loader has a state of its own.
    """

    head: Head = ()
    recent: Mapping[int, str] = field(default_factory=dict)
    random: Mapping[int, rng.RandomState] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)

    @property
    def known(self) -> dict[int, str]:
        """All fingerprints, by number."""
        return {**{number: batch[0] for number, batch in enumerate(self.head, 1)}, **self.recent}

    def comparable(self, *, steady: bool) -> dict[int, str]:
        """Return the fingerprints, by number, that a pass with the same beginning must reproduce.

        Args:
            steady: Whether the loader loads each batch on demand, not ahead.
        """
        if not self.random:
            return self.known
        # Up to the first batch, everything depends only on the start of the pass.
        first = {1: self.head[0][0]} if self.head else {}
        ahead = 0 if steady else _AHEAD
        known = {n for n in self.recent if all(k in self.random for k in range(max(n - ahead, 1), n + 1))}
        return {**first, **{n: self.recent[n] for n in known}}


class Watch:
    """Takes fingerprints of batches: of the first four, then as often as 1% of the time allows.

    If the loader proves to draw from the global generators of this process during the pass, every batch is
    fingerprinted:
    its draws depend on those of the loop's body in between, which are not repeated.

    Args:
        steady: Whether neither the order nor batches loaded ahead depend on such draws.
        marks: The marks so far, of a resumed pass.
        rows: Whether to record rows of batches.
        on_head: Called once with the fingerprints of the first batches, as soon as they or all batches have arrived.
    """

    def __init__(
        self,
        *,
        steady: bool = False,
        marks: BatchMarks | None = None,
        rows: bool = False,
        on_head: Callable[[Head], object] | None = None,
    ) -> None:
        marks = marks or BatchMarks()
        self._steady = steady
        self._draws = bool(marks.random)
        self._head: list[tuple[Sample | str, ...]] = list(marks.head)
        self._recent: deque[tuple[int, Sample | str]] = deque(marks.recent.items(), maxlen=_RECENT)
        self._random: deque[tuple[int, rng.RandomState]] = deque(
            marks.random.items(), maxlen=_STATES if steady else _RECENT + _AHEAD
        )
        self._rows: deque[RowSamples | Rows] | None = deque([marks.rows], maxlen=_RECENT) if rows else None
        self._on_head = on_head
        self._due = 0.0

    def batches(self, iterator: Iterator[T], consumed: int) -> Iterator[T]:
        """Yield the batches of an iterator; the first one has the number `consumed` + 1."""
        for number in count(consumed + 1):
            begun = time.perf_counter()
            is_due = number <= HEAD or begun >= self._due
            # Without a replay, the latest batches are what later ones can be compared with.
            marks = is_due or (self._draws and not self._steady) or self._rows is not None
            marks = marks and self._note_random(number)
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                self._end_head()
                return
            if marks:
                given = time.perf_counter()
                self._take(number, batch, rows=is_due)
                done = time.perf_counter()
                self._due = done + (asked - begun + done - given) / _SHARE
            if number == HEAD:
                self._end_head()
            yield batch

    def marks(self) -> BatchMarks:
        """Return the marks. Waits for the devices of the batches."""
        recent = {number: _digest(sample) for number, sample in self._recent}
        self._recent = deque(recent.items(), maxlen=_RECENT)
        random = dict(self._random) if self._draws else {}
        rows = self._row_digests()
        return BatchMarks(self.head(), {number: mark for number, mark in recent.items() if mark}, random, rows)

    def _row_digests(self) -> Rows:
        if self._rows is None:
            return {}
        digests = [_row_digests(samples) for samples in self._rows]
        self._rows = deque(digests, maxlen=_RECENT)
        return joined(digests)

    def head(self) -> Head:
        """Return the fingerprints of the first batches that have arrived."""
        head = tuple(tuple(map(_digest, batch)) for batch in self._head)
        self._head = list(head)
        return head

    def _end_head(self) -> None:
        if self._on_head is not None:
            on_head, self._on_head = self._on_head, None
            on_head(self.head())

    def _note_random(self, number: int) -> bool:
        """Record the current states of the generators, and return whether they are available."""
        try:
            self._random.append((number, rng.capture()))
        except Exception:  # noqa: BLE001 - a device may be gone, and a mark must not end training
            return False
        return True

    def _take(self, number: int, batch: object, *, rows: bool) -> None:
        if number > 1 and not self._draws:
            try:
                self._draws = not rng.same(self._random[-1][1], rng.capture())
            except Exception:  # noqa: BLE001 - as in _note_random
                return
        try:
            sample = take(batch)
            fields = map(take, fields_of(batch)) if number <= HEAD else ()
            batch_samples = (sample, *fields)
            if rows and self._rows is not None:
                self._rows.append(rows_of(batch))
        except Exception:  # noqa: BLE001 - a batch is an arbitrary object, and must not end training
            return
        self._recent.append((number, sample))
        if number == len(self._head) + 1 and number <= HEAD:
            self._head.append(batch_samples)


def repeat(iterator: Iterator[object], times: int, marks: BatchMarks, *, steady: bool) -> tuple[int, int | None]:
    """Load batches again and drop them.

    Args:
        iterator: The pass, at its start.
        times: Number of batches.
        marks: The marks of some of them.
        steady: As in `BatchMarks.comparable`.

    Returns:
        Number of batches loaded; number of the first one that differs from its mark, None if none does.
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
    """Return the fields of a batch, such as images and labels: one may be noisy, the other not.

    Fields with few values are omitted: they may be equal by chance.
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
    """Return a fingerprint; empty if none is available."""
    if isinstance(sample, str):
        return sample
    try:
        return sample.digest()
    except Exception:  # noqa: BLE001 - a batch is an arbitrary object, and must not end training
        return ""


def _row_digests(samples: RowSamples | Rows) -> Rows:
    """Return the digests of rows; none if they are not available."""
    try:
        return row_digests(samples)
    except Exception:  # noqa: BLE001 - as in _digest
        return {}


def _fingerprint(batch: object) -> str | None:
    try:
        return fingerprint(batch)
    except Exception:  # noqa: BLE001 - the recorded batch had a fingerprint, so this one differs
        return None
