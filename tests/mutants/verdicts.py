"""What the vectors made of the mutants, beside the list of those that no vector can notice."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.hunt import Verdict

EQUIVALENT = Path(__file__).with_name("equivalent.toml")


def read_equivalents() -> dict[str, str]:
    """Return the reason for each mutant that is listed as equivalent.

    Raises:
        ValueError: A mutant is listed twice, or without a reason.
    """
    groups = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    names = Counter(name for group in groups for name in group["mutants"])
    twice = [name for name, count in names.items() if count > 1]
    if twice or not all(group["reason"] for group in groups):
        raise ValueError(f"listed twice, or without a reason: {twice}")
    return {name: group["reason"] for group in groups for name in group["mutants"]}


@dataclass
class Verdicts:
    """Counts what was seen, and says what is wrong with it.

    Attributes:
        listed: The reason for each mutant that is listed as equivalent.
        noticed: How many mutants a vector noticed.
        equivalent: How many were not noticed, and are listed.
        faults: How many were neither, or both.
    """

    listed: Mapping[str, str]
    noticed: int = 0
    equivalent: int = 0
    faults: int = 0

    def add(self, verdict: Verdict) -> str | None:
        """Count a verdict; return what is wrong with it."""
        listed = verdict.mutant in self.listed
        if verdict.noticed_by is None and listed:
            self.equivalent += 1
            return None
        if verdict.noticed_by is not None and not listed:
            self.noticed += 1
            return None
        self.faults += 1
        if listed:
            return f"listed as equivalent, but {verdict.noticed_by} notices it: {verdict.mutant}"
        return f"no vector notices it: {verdict.mutant}"

    def without_mutant(self, names: Collection[str]) -> list[str]:
        """Return what is listed and no mutant (any more), and count it as a fault."""
        missing = [name for name in self.listed if name not in names]
        self.faults += len(missing)
        return missing
