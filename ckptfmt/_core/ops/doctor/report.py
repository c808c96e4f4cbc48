"""Report of a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass

from ckptfmt._core.training.rehearsal.journal import Kind

__all__ = ["Case", "DoctorReport", "Finding"]


@dataclass(frozen=True)
class Finding:
    """Something that differs between the uninterrupted run and a resumed one.

    Attributes:
        kind: What it is.
        name: Its name, with the place: `ema in main()`.
        type_name: Its class; empty where the kind says it all.
        step: Steps done when the difference shows first.
        expected: Value in the uninterrupted run, if it is short.
        found: Value in the resumed run, if it is short.
    """

    kind: Kind
    name: str
    type_name: str
    step: int
    expected: str = ""
    found: str = ""

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `kind`, `name`, `type`, `step`, `expected` and `found` (text, empty if not short)."""
        return {
            "kind": self.kind.value,
            "name": self.name,
            "type": self.type_name,
            "step": self.step,
            "expected": self.expected,
            "found": self.found,
        }


@dataclass(frozen=True)
class Case:
    """One kill, and what became of the resumed run.

    Attributes:
        title: Where it was killed: `after step 2, in epoch 0`.
        causes: What was not restored, the most likely cause first: different before the resumed run did anything.
        effects: What became different later.
        tensors: Names of tensors and values that differ at the end, with their component.
        failure: Why the resumed run did not reach the end, with the last lines of its output; empty if it did.
    """

    title: str
    causes: tuple[Finding, ...] = ()
    effects: tuple[Finding, ...] = ()
    tensors: tuple[str, ...] = ()
    failure: str = ""

    @property
    def exact(self) -> bool:
        """Whether the resumed run was exactly the uninterrupted one."""
        return not (self.causes or self.effects or self.tensors or self.failure)

    def to_json(self) -> dict[str, object]:
        """Return it in JSON.

        Keys: `title`, `exact`, `causes` and `effects` (see `Finding.to_json`), `tensors` (names), `failure` (text,
        empty if there was none).
        """
        return {
            "title": self.title,
            "exact": self.exact,
            "causes": [finding.to_json() for finding in self.causes],
            "effects": [finding.to_json() for finding in self.effects],
            "tensors": list(self.tensors),
            "failure": self.failure,
        }


@dataclass(frozen=True)
class DoctorReport:
    """Report of a rehearsal.

    Attributes:
        command: The command, with its arguments.
        steps: Steps of the uninterrupted run.
        epochs: Epochs that it finished.
        noise: What differs between two uninterrupted runs, the first difference of each thing; without generators that
            the program does not use.
        cases: The kills; none if random states or batches differ between two uninterrupted runs.
    """

    command: tuple[str, ...]
    steps: int
    epochs: int
    noise: tuple[Finding, ...]
    cases: tuple[Case, ...]

    @property
    def deterministic(self) -> bool:
        """Whether two uninterrupted runs had the same components, random states and batches."""
        watched = (Kind.COMPONENT, Kind.RANDOM, Kind.BATCH)
        return not any(finding.kind in watched for finding in self.noise)

    @property
    def exact(self) -> bool:
        """Whether all resumed runs were exactly the uninterrupted one."""
        return all(case.exact for case in self.cases)

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"doctor/1"`), `command` (array), `steps`, `epochs`, `deterministic` (whether two uninterrupted
        runs agreed), `exact`, `noise` (see `Finding.to_json`), `cases` (see `Case.to_json`).
        """
        return {
            "report": "doctor/1",
            "command": list(self.command),
            "steps": self.steps,
            "epochs": self.epochs,
            "deterministic": self.deterministic,
            "exact": self.exact,
            "noise": [finding.to_json() for finding in self.noise],
            "cases": [case.to_json() for case in self.cases],
        }
