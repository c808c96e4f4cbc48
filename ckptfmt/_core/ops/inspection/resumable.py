"""Whether training can resume from a file, or only warm-start."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from ckptfmt._core.ops.inspection.component_roles import Role

__all__ = ["Resumable", "ResumeAnswer", "can_resume"]


class Resumable(StrEnum):
    """What training can do with a file."""

    EXACTLY = "exactly"
    """Resume as if it had never stopped."""
    INEXACTLY = "inexactly"
    """Resume, with other random numbers or at another position in the data."""
    WARM_START = "warm-start"
    """Start a new run from its weights."""
    NO = "no"
    """Nothing: it contains no weights."""


_NEEDED = (Role.WEIGHTS, Role.OPTIMIZER, Role.RANDOM, Role.PROGRESS)
_NAMED = (*_NEEDED[:2], Role.SCHEDULER, Role.SCALER, *_NEEDED[2:])


@dataclass(frozen=True)
class ResumeAnswer:
    """The answer, and the reason for it.

    Attributes:
        answer: What training can do with the file.
        holds: The roles that its components have.
        lacks: The roles that an exact resume needs and that no component has.
    """

    answer: Resumable
    holds: tuple[Role, ...]
    lacks: tuple[Role, ...]

    def to_json(self) -> dict[str, object]:
        """Return the answer in JSON: `answer` (a `Resumable`), `holds` and `lacks` (arrays of `Role`)."""
        return {
            "answer": self.answer.value,
            "holds": [role.value for role in self.holds],
            "lacks": [role.value for role in self.lacks],
        }


def can_resume(roles: Collection[Role]) -> ResumeAnswer:
    """Return what training can do with a file whose components have these roles.

    The file does not show whether training had a scheduler, a scaler or anything else. Resuming itself checks that the
    file fits.
    """
    lacks = tuple(role for role in _NEEDED if role not in roles)
    if Role.WEIGHTS in lacks:
        answer = Resumable.NO
    elif Role.OPTIMIZER in lacks:
        answer = Resumable.WARM_START
    else:
        answer = Resumable.INEXACTLY if lacks else Resumable.EXACTLY
    return ResumeAnswer(answer, tuple(role for role in _NAMED if role in roles), lacks)
