"""Comparison of the journals of two processes: what differs, and what differed first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from ckptfmt._core.ops.doctor.report import Finding
from ckptfmt._core.training.rehearsal.journal import Entry, Kind, Thing

__all__ = ["causes_of", "effects_of", "first_differences", "is_unused_generator", "telling"]

# The most telling first: a module that is not saved explains more than a batch that differs.
_ORDER = (
    Kind.MODULE,
    Kind.OPTIMIZER,
    Kind.SCHEDULER,
    Kind.STATEFUL,
    Kind.GENERATOR,
    Kind.VARIABLE,
    Kind.COMPONENT,
    Kind.RANDOM,
    Kind.BATCH,
    Kind.ATTRIBUTE,
)
_WATCHED = (Kind.COMPONENT, Kind.RANDOM, Kind.BATCH)


def first_differences(one: Sequence[Entry], other: Sequence[Entry]) -> tuple[Finding, ...]:
    """Return the first difference of each thing between two journals that should be equal, in order of time."""
    found: dict[tuple[Kind, str], Finding] = {}
    for entry, match in _matched(one, other):
        for finding in _differences(entry, match):
            found.setdefault((finding.kind, finding.name), finding)
    return tuple(found.values())


def causes_of(
    uninterrupted: Sequence[Entry], resumed: Sequence[Entry], noise: Collection[Finding]
) -> tuple[Finding, ...]:
    """Return what differed before the resumed run had done anything, the most likely cause first.

    Args:
        uninterrupted: Journal of the uninterrupted run.
        resumed: Journal of the resumed process.
        noise: What differs between uninterrupted runs.
    """
    known = {(finding.kind, finding.name) for finding in noise}
    for entry, match in _matched(uninterrupted, resumed):
        found = [finding for finding in _differences(entry, match) if (finding.kind, finding.name) not in known]
        return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.kind)))
    return ()


def telling(causes: Sequence[Finding], *, changed: bool) -> tuple[Finding, ...]:
    """Return the causes to report.

    A program may replace an attribute before it reads it, and nothing shows that. So attributes are reported only if
    something else became different, and only if nothing else can explain it.

    Args:
        causes: What differed before the resumed run had done anything.
        changed: Whether anything became different later.
    """
    others = tuple(finding for finding in causes if finding.kind is not Kind.ATTRIBUTE)
    return others or (tuple(causes) if changed else ())


def effects_of(
    uninterrupted: Sequence[Entry], resumed: Sequence[Entry], noise: Collection[Finding], causes: Collection[Finding]
) -> tuple[Finding, ...]:
    """Return which components, random states and batches became different later, in order of time; see `causes_of`."""
    known = {(finding.kind, finding.name) for finding in (*noise, *causes)}
    return tuple(
        finding
        for finding in first_differences(uninterrupted, resumed)
        if finding.kind in _WATCHED and (finding.kind, finding.name) not in known
    )


def is_unused_generator(finding: Finding, journal: Sequence[Entry]) -> bool:
    """Return whether a finding is about a global generator that a run never draws from."""
    return finding.kind is Kind.RANDOM and len({entry.random.get(finding.name) for entry in journal}) == 1


def _matched(one: Sequence[Entry], other: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Yield the entries of the same moments of two journals, in the order of the second."""
    places = {entry.place: entry for entry in one}
    for entry in other:
        if entry.place in places:
            yield places[entry.place], entry


def _differences(entry: Entry, match: Entry) -> Iterator[Finding]:
    yield from _named(Kind.COMPONENT, entry.components, match.components, entry.step)
    yield from _named(Kind.RANDOM, entry.random, match.random, entry.step)
    if entry.batch != match.batch:
        yield Finding(Kind.BATCH, f"of step {entry.step}", "", entry.step)
    for name, thing in entry.things.items():
        there = match.things.get(name)
        # A variable that is not there yet would end the program with a NameError if it were read.
        if there is not None and thing.is_live and _state(thing) != _state(there):
            kind = thing.kind
            yield Finding(kind, name, thing.type_name, entry.step, thing.shown, there.shown)


def _state(thing: Thing) -> tuple[str, str]:
    return thing.type_name, thing.digest


def _named(kind: Kind, one: Mapping[str, str], other: Mapping[str, str], step: int) -> Iterator[Finding]:
    for name, digest in one.items():
        if other.get(name) != digest:
            yield Finding(kind, name, "", step)
