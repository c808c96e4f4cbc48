"""What another format cannot hold."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Dropped"]


@dataclass(frozen=True)
class Dropped:
    """Something of the source that is not in the target, or not as it was.

    Attributes:
        what: Its name.
        why: The reason.
        times: Number of occurrences.
    """

    what: str
    why: str
    times: int = 1

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: the attributes under their names."""
        return {"what": self.what, "why": self.why, "times": self.times}
