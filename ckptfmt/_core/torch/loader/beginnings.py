"""How the passes of a run began: so that one after a resume that only repeats an earlier one is found out.

What an order follows from may be out of sight: in a module, in an extension, behind an iterator. A process that is
resumed at the end of an epoch then begins again with the first order, or with the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["Beginning", "Beginnings", "Verdict"]

_ENOUGH = 4


class Verdict(Enum):
    """What to do about a pass that is the first after a resume."""

    FINE = auto()
    """It is another one, or nothing is known against it."""
    DOUBTFUL = auto()
    """It repeats an earlier one, which may be right: something has changed, or there is little to compare."""
    WRONG = auto()
    """It repeats an earlier one, and nothing that is seen tells why it should."""


@dataclass(frozen=True)
class Beginning:
    """How a pass began.

    Attributes:
        head: Fingerprints of its first batches: of each the whole, then its fields.
        seen: Mark of what could be seen of the loader just before; nothing if it is a list of batches.
    """

    head: tuple[tuple[str, ...], ...] = ()
    seen: str = ""

    def like(self, other: Beginning) -> bool:
        """Say whether both have the same batches, as far as both are known.

        They have if one of their fields is the same in several batches, and another one in each: what is drawn at
        random on top of another field, such as augmentation, says nothing about the order.
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
    """What is known of how passes began.

    Attributes:
        first: The first pass of the run.
        last: The last one.
        passes: How many there were.
        alike: Whether one began like the one before.
        differed: Whether one did not.
        returned: Whether one began like the first, after others.
        repeated: Whether the first after a resume began like the one before, when none had differed so far.
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
                return Verdict.FINE  # it is new, or was brought back to the first on purpose
            if self.passes == 2 and not new.seen:
                return Verdict.DOUBTFUL  # two lists may come in turns
        moved = new.seen != self.last.seen
        return Verdict.DOUBTFUL if moved or len(new.head) < _ENOUGH else Verdict.WRONG

    def tells_of_repetition(self, new: Beginning) -> bool:
        """Say whether a pass shows that the first one after a resume may have been the wrong one."""
        return self.repeated and not new.like(self.last)

    def followed_by(self, new: Beginning, *, resumed: bool) -> Beginnings:
        """Return what is known when one more pass has begun.

        Args:
            new: The pass.
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
            # Two that are alike in one process show that the loader always begins so.
            repeated=like and not self.differed and resumed and (self.repeated or not self.alike),
        )
