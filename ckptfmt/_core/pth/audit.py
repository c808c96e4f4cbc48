"""Audit of a file: every name in each of its pickles is judged, and with it whether the file may be read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ckptfmt._core.pth.forms.container import Pickled
from ckptfmt._core.pth.names.globals import Judgement, Verdict, judge, judge_call
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import Global
from ckptfmt._core.pth.pickle.machine import NOWHERE
from ckptfmt.errors import UnsafeInputError

__all__ = ["Audit", "NameUse", "audit", "check"]

_NAMED_IN_ERROR = 5
_ADVICE = "use a file from a source you trust, or keep a name as inert data with inert=[NAME] (--inert NAME)"


@dataclass(frozen=True)
class NameUse:
    """A name that a pickle would have imported.

    Attributes:
        part: Which part of the file it stands in; empty if there is but one.
        name: The name, as the file spells it.
        times: How often it is taken from there.
        called: Whether it would have been called, or an object made of it.
        verdict: What becomes of it here.
        reason: Why, in words that go on after the name.
    """

    part: str
    name: str
    times: int
    called: bool
    verdict: Verdict
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: the attributes under their names."""
        return {
            "part": self.part,
            "name": self.name,
            "times": self.times,
            "called": self.called,
            "verdict": self.verdict.value,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Audit:
    """Everything that the pickles of a file would have done.

    Attributes:
        names: Every name, part by part.
        violations: Anything else that they would have done and that no checkpoint needs: part and description.
    """

    names: tuple[NameUse, ...]
    violations: tuple[tuple[str, str], ...]

    @property
    def refused(self) -> tuple[NameUse, ...]:
        """The names for which the file is refused."""
        return tuple(use for use in self.names if use.verdict is Verdict.REFUSED)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of other packages, each once."""
        return tuple(dict.fromkeys(use.name for use in self.names if use.verdict is Verdict.UNKNOWN))

    @property
    def safe(self) -> bool:
        """Whether the file may be read."""
        return not self.refused and not self.violations

    def to_json(self) -> dict[str, object]:
        """Return the audit in JSON.

        Keys: `safe` (boolean), `names` (see `NameUse.to_json`), `violations` (objects: `part`, `violation`).
        """
        return {
            "safe": self.safe,
            "names": [use.to_json() for use in self.names],
            "violations": [{"part": part, "violation": violation} for part, violation in self.violations],
        }


_WAIVED = Judgement(Verdict.INERT, "kept as inert data, as requested")


def audit(pickles: Iterable[Pickled], inert: Collection[str] = ()) -> Audit:
    """Return what pickles would have done, without doing it.

    Args:
        pickles: Every pickle of a file.
        inert: Names to keep as inert data that would be refused or unknown: dotted, as the file or `canonical` spells
            them.
    """
    waived = frozenset(inert)
    names: list[NameUse] = []
    violations: list[tuple[str, str]] = []
    for part, run in ((pickled.part, pickled.run) for pickled in pickles):
        names += [_use(part, name, times, waived, called=name in run.called) for name, times in run.globals.items()]
        violations += [
            (part, found.words) for found in run.violations if found.name is None or not _is_waived(found.name, waived)
        ]
    return Audit(tuple(names), tuple(violations))


def _use(part: str, name: Global, times: int, waived: frozenset[str], *, called: bool) -> NameUse:
    assert name != NOWHERE  # the machine counts only what is named
    judgement = judge_call(name) if called else judge(name)
    if judgement.verdict in (Verdict.REFUSED, Verdict.UNKNOWN) and _is_waived(name, waived):
        judgement = _WAIVED
    return NameUse(part, _shown(name), times, called, judgement.verdict, judgement.reason)


def _is_waived(name: Global, waived: frozenset[str]) -> bool:
    return str(name) in waived or canonical(name) in waived


def _shown(name: Global) -> str:
    text = str(name)
    return text if len(text) <= 200 else f"{text[:150]}...{text[-40:]}"


def check(found: Audit, path: str, *, strict: bool = False) -> None:
    """Refuse a file that would have run code.

    Args:
        found: What its pickles would have done.
        path: The file.
        strict: Refuse names of other packages, too.

    Raises:
        UnsafeInputError: With every name for which it is refused, up to a few.
    """
    reasons = [f"{use.name}{_where(use.part)}: {use.reason}" for use in found.refused]
    reasons += [f"the pickle {violation}{_where(part)}" for part, violation in found.violations]
    if reasons:
        raise UnsafeInputError(f"{path}: refused, because loading it would run code: {_few(reasons)}; {_ADVICE}")
    if strict and found.unknown:
        raise UnsafeInputError(
            f"{path}: refused, because strict reading allows no objects of unknown classes: "
            f"{_few(found.unknown)}; {_ADVICE}"
        )


def _few(reasons: Iterable[str]) -> str:
    every = list(dict.fromkeys(reasons))
    rest = len(every) - _NAMED_IN_ERROR
    return "; ".join(every[:_NAMED_IN_ERROR]) + (f"; and {rest} more" if rest > 0 else "")


def _where(part: str) -> str:
    return f" (in {part})" if part else ""
