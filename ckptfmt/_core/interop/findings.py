"""What is reported of a file of another format, beyond what every file has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ckptfmt._core.interop.dropped import Dropped

__all__ = ["Findings", "merged_findings"]


@dataclass(frozen=True)
class Findings:
    """What is reported about a file in another format.

    Attributes:
        producer: The program that wrote it, if recorded.
        inert: Classes of the objects that became inert data, with their number.
        unknown: Those of these classes that belong to other packages.
        modules: Classes of whole modules and optimizers whose state was recovered, with their number.
        dropped: What was left out, and why.
        notes: How its content was interpreted, in sentences.
    """

    producer: str | None = None
    inert: Mapping[str, int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    modules: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return them in JSON.

        Keys: `producer` (or null), `inert` and `modules` (objects: class name to number), `unknown` and `notes` (arrays
        of strings), `dropped` (array, see `Dropped.to_json`).
        """
        return {
            "producer": self.producer,
            "inert": dict(self.inert),
            "unknown": list(self.unknown),
            "modules": dict(self.modules),
            "dropped": [dropped.to_json() for dropped in self.dropped],
            "notes": list(self.notes),
        }


def merged_findings(producer: str | None, several: Iterable[Findings]) -> Findings:
    """Return the findings of several files as those of one."""
    several = tuple(several)
    inert: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for found in several:
        inert.update(found.inert)
        modules.update(found.modules)
    return Findings(
        producer=producer,
        inert=dict(inert),
        unknown=tuple(dict.fromkeys(name for found in several for name in found.unknown)),
        modules=dict(modules),
        dropped=tuple(dropped for found in several for dropped in found.dropped),
        notes=tuple(note for found in several for note in found.notes),
    )
