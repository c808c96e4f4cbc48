"""Beginnings of the passes of a run, to detect a pass after a resume that only repeats an earlier one.

The state that determines the order may be invisible: in a module, in an extension, behind an iterator. A process
resumed at the end of an epoch then repeats the first order or the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["Beginning", "Beginnings", "Orders", "Verdict"]

_ENOUGH = 4


class Verdict(Enum):
    """Verdict on the first pass after a resume."""

    FINE = auto()
    """The pass differs from earlier ones, or nothing contradicts it."""
    DOUBTFUL = auto()
    """It repeats an earlier one, which may be right: something changed, or there is little to compare."""
    WRONG = auto()
    """It repeats an earlier one, and no visible state explains why."""


@dataclass(frozen=True)
class Beginning:
    """How a pass began.

    Attributes:
        head: Fingerprints of its first batches: for each one the whole batch, then its fields.
        seen: Mark of the visible state of the loader just before; empty for a list of batches.
    """

    head: tuple[tuple[str, ...], ...] = ()
    seen: str = ""

    def like(self, other: Beginning) -> bool:
        """Return whether both have the same batches, as far as both are known.

        They do if one field is equal in all known batches and has a different value in each: randomness in another
        field, such as
        augmentation, says nothing about the order.
        """
        pairs = list(zip(self.head, other.head, strict=False))
        if not pairs or all(one[0] == same[0] for one, same in pairs):
            return bool(pairs)
        fields = min(len(batch) for pair in pairs for batch in pair)
        return len(pairs) >= _ENOUGH and any(
            all(one[field] == same[field] for one, same in pairs)
            and len({one[field] for one, _ in pairs}) == len(pairs)
            for field in range(1, fields)
        )


@dataclass(frozen=True)
class Beginnings:
    """Record of the beginnings of passes.

    Attributes:
        first: Beginning of the first pass of the run.
        last: Beginning of the last pass.
        passes: Number of passes.
        alike: Whether any pass began like the previous one.
        differed: Whether any pass began differently from the previous one.
        returned: Whether any pass began like the first one, after others.
        repeated: Whether the first pass after a resume began like the previous one, when none had differed so far.
    """

    first: Beginning = Beginning()
    last: Beginning = Beginning()
    passes: int = 0
    alike: bool = False
    differed: bool = False
    returned: bool = False
    repeated: bool = False

    def judge(self, new: Beginning) -> Verdict:
        """Judge the first pass after a resume."""
        if self.alike or not self.differed:
            return Verdict.FINE
        if not new.like(self.last):
            if self.returned or not new.like(self.first) or new.seen == self.first.seen != self.last.seen:
                return Verdict.FINE  # it is new, or returned to the first on purpose
            if self.passes == 2 and not new.seen:
                return Verdict.DOUBTFUL  # two lists may alternate
        moved = new.seen != self.last.seen
        return Verdict.DOUBTFUL if moved or len(new.head) < _ENOUGH else Verdict.WRONG

    def tells_of_repetition(self, new: Beginning) -> bool:
        """Return whether a pass shows that the first one after a resume may have been wrong."""
        return self.repeated and not new.like(self.last)

    def followed_by(self, new: Beginning, *, resumed: bool) -> Beginnings:
        """Return the record with one more pass.

        Args:
            new: Beginning of the pass.
            resumed: Whether it is the first after a resume.
        """
        if not new.head:
            return self
        if not self.last.head:
            return Beginnings(new, new, 1)
        like = new.like(self.last)
        return Beginnings(
            self.first,
            new,
            self.passes + 1,
            alike=self.alike or like,
            differed=self.differed or not like,
            returned=self.returned or (not like and new.like(self.first)),
            # Two alike in one process show that the loader always begins this way.
            repeated=like and not self.differed and resumed and (self.repeated or not self.alike),
        )


@dataclass(frozen=True)
class Orders:
    """Records of the beginnings of passes, by batches and by indices.

    Noise in all fields of a batch hides a repeated order, but not in the indices. A data set that shuffles itself
    shows in the batches only.

    Attributes:
        batches: By the first batches.
        indices: By the first indices, where they are known.
    """

    batches: Beginnings = Beginnings()
    indices: Beginnings = Beginnings()

    @property
    def repeated(self) -> bool:
        """Whether either has `Beginnings.repeated`."""
        return self.batches.repeated or self.indices.repeated

    def judge(self, batches: Beginning, indices: Beginning) -> Verdict:
        """Return the worse verdict of both."""
        known = self._comparable(indices)
        return max(self.batches.judge(batches), known.judge(indices), key=list(Verdict).index)

    def tells_of_repetition(self, batches: Beginning, indices: Beginning) -> bool:
        """Return whether `Beginnings.tells_of_repetition` holds for either."""
        known = self._comparable(indices)
        return self.batches.tells_of_repetition(batches) or known.tells_of_repetition(indices)

    def followed_by(self, batches: Beginning, indices: Beginning, *, resumed: bool) -> Orders:
        """Return the records with one more pass; see `Beginnings.followed_by`."""
        known = self._comparable(indices)
        return Orders(self.batches.followed_by(batches, resumed=resumed), known.followed_by(indices, resumed=resumed))

    def _comparable(self, indices: Beginning) -> Beginnings:
        """Return the record of indices; an empty one if it begins at another draw, with other workers."""
        one, other = (_first_draw(beginning) for beginning in (self.indices.last, indices))
        return self.indices if other in ("", one) else Beginnings()


def _first_draw(indices: Beginning) -> str:
    return indices.head[0][0].partition(" ")[0] if indices.head else ""
