"""What became of the parts of a file that are no plain values: collected while it is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Notes"]


@dataclass
class Notes:
    """What is told about a file that was read.

    Attributes:
        inert: Classes of which objects became inert data, with how many.
        modules: Classes of whole modules and optimizers whose state was recovered, with how many.
        dropped: What was left out and why, with how often.
    """

    inert: Counter[str] = field(default_factory=Counter)
    modules: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)

    def drop(self, what: str, why: str) -> None:
        """Note that something was left out."""
        self.dropped[what, why] += 1
