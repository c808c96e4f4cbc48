"""Which checkpoints of a run may go: a plan with a reason for each. Pure; `pruning` acts on it.

Whatever the policy, the plan never removes

- the newest checkpoint of the run, so never the only one either;
- one that has a pin, or that a symbolic link in the directory leads to;
- a file that cannot be read or is damaged: nobody knows what it holds;
- a checkpoint of another run; or of none, unless those are what the policy is about, and it says how far it was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from types import MappingProxyType
from typing import Literal

from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.scan import choose_run, distinct_bytes, newest_first
from ckptfmt._core.storage.base import Version
from ckptfmt.errors import UsageError

__all__ = ["Decision", "Mode", "RetentionPlan", "RetentionPolicy", "best_first", "plan_retention"]

Mode = Literal["min", "max"]

_ANYHOW = "no rule against it"
_SIZES = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1)))


@dataclass(frozen=True)
class RetentionPolicy:
    """What to keep: whatever at least one rule asks for. Without any rule, everything.

    Attributes:
        keep_last: So many of the newest checkpoints.
        keep_best: A metric, `min` or `max`, and how many of the best by it (1 if left out). Among equals the newest
            is better; a value that is not finite is never the best.
        keep_every_steps: Of every so many steps the first checkpoint. Saves need not fall on round numbers; before
            the first round number there is none.
        keep_within: Those created within this time before the newest one of the run, or before now if that is
            earlier: a wrong clock then keeps more rather than less. Also those that do not say when they were
            created.
        max_bytes: Upper limit for all checkpoints of the run together. It overrides the other rules: the oldest go
            first, the best ones last. What is never removed (see above) may be more.
        run_id: The run; None for the one that would be resumed (`choose_run`).
        runless: The checkpoints that belong to no run are meant, as if they were those of one run.

    Raises:
        UsageError: A value is out of its range.
    """

    keep_last: int | None = None
    keep_best: tuple[str, Mode] | tuple[str, Mode, int] | None = None
    keep_every_steps: int | None = None
    keep_within: timedelta | None = None
    max_bytes: int | None = None
    run_id: str | None = None
    runless: bool = False

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_every_steps", "max_bytes"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name} is {value!r}: give a whole number from 1 on, or None")
        if self.keep_within is not None and self.keep_within <= timedelta():
            raise UsageError(f"keep_within is {self.keep_within}: give a time longer than 0, or None")
        if self.keep_best is not None:
            _check_best(self.keep_best)
        if self.runless and self.run_id is not None:
            raise UsageError(f"run_id is {self.run_id!r} and runless is set: name a run, or mean those of none")

    @property
    def best(self) -> tuple[str, Mode, int] | None:
        """Metric, mode and count of `keep_best`."""
        if self.keep_best is None:
            return None
        metric, mode, *count = self.keep_best
        return metric, mode, count[0] if count else 1

    @property
    def keeps_everything(self) -> bool:
        """Whether there is no rule."""
        rules = (self.keep_last, self.keep_best, self.keep_every_steps, self.keep_within, self.max_bytes)
        return all(rule is None for rule in rules)


def _check_best(given: object) -> None:
    match given:
        case (str(), "min" | "max"):
            return
        case (str(), "min" | "max", int(count)) if count >= 1 and type(count) is int:
            return
    raise UsageError(f'keep_best is {given!r}: give a metric and "min" or "max", e.g. ("val_loss", "min")')


@dataclass(frozen=True)
class Decision:
    """What is to become of one file.

    Attributes:
        file: The file.
        keep: Whether it stays.
        reasons: Why: everything that keeps it, or the one sentence on why nothing does.
        concerned: Whether the policy is about it; if not, it is left alone.
    """

    file: CheckpointReference
    keep: bool
    reasons: tuple[str, ...]
    concerned: bool = True

    def __str__(self) -> str:
        return f"{'kept' if self.keep else 'removed'}: {', '.join(self.reasons)}"


@dataclass(frozen=True)
class RetentionPlan:
    """What is to become of each file of a directory.

    Attributes:
        run_id: The run that the policy is applied to; None if no checkpoint belongs to a run, or those of none are
            meant.
        runless: Whether those of none are meant.
        decisions: One for each file: those of the run from the newest to the oldest, then all others by name.
    """

    run_id: str | None
    decisions: tuple[Decision, ...]
    runless: bool = False

    @property
    def removed(self) -> tuple[CheckpointReference, ...]:
        """What is to go, the oldest first."""
        return tuple(decision.file for decision in reversed(self.decisions) if not decision.keep)

    @property
    def kept(self) -> tuple[CheckpointReference, ...]:
        """What of the run is to stay and can be used: the newest first, then links to some."""
        return tuple(item.file for item in self.decisions if item.keep and (item.concerned or self._links(item.file)))

    def _links(self, file: CheckpointReference) -> bool:
        return file.link and file.usable and self.run_id is not None and file.run_id == self.run_id

    @property
    def freed_bytes(self) -> int:
        """Length of all files that are to go; what stays under another name is not among it."""
        every = [item.file for item in self.decisions]
        return distinct_bytes(every) - distinct_bytes(item.file for item in self.decisions if item.keep)


def plan_retention(
    files: Collection[CheckpointReference],
    policy: RetentionPolicy,
    *,
    now: datetime | None = None,
    protected: Mapping[str, str] = MappingProxyType({}),
) -> RetentionPlan:
    """Return which of the files of a directory stay under a policy, and why.

    Args:
        files: All that `runs.scan.scan` found there.
        policy: What to keep.
        now: The present, aware; the clock's if None.
        protected: Paths of files that stay in any case, and why.
    """
    now = datetime.now(UTC) if now is None else now
    run_id = choose_run(files, now) if policy.run_id is None and not policy.runless else policy.run_id
    ours = [file for file in newest_first(files, run_id) if _is_meant(file, run_id, policy)]
    linked = {file.version: file.name for file in files if file.link and file.version is not None}
    reasons: dict[str, list[str]] = {file.path: [] for file in ours}
    safe = set()
    for file in ours:
        reasons[file.path] += (why := list(_safe(file, ours, linked, protected)))
        if why:
            safe.add(file.path)
    _apply_rules(policy, ours, reasons, now)
    capped = _beyond(policy, ours, reasons, safe)
    decisions = [_decision(file, policy, reasons[file.path], capped) for file in ours]
    others = sorted((file for file in files if file.path not in reasons), key=lambda file: file.name)
    left = [Decision(file, True, (_left_alone(file, policy),), concerned=False) for file in others]
    return RetentionPlan(run_id, (*decisions, *left), policy.runless)


def best_first(files: Iterable[CheckpointReference], metric: str, mode: Mode) -> list[CheckpointReference]:
    """Return the files that have a finite value of a metric, the best first; among equals, in the given order."""
    having = [file for file in files if math.isfinite((file.metadata.metrics or {}).get(metric, math.nan))]
    return sorted(having, key=lambda file: (file.metadata.metrics or {})[metric] * (1 if mode == "min" else -1))


def _is_meant(file: CheckpointReference, run_id: str | None, policy: RetentionPolicy) -> bool:
    """Say whether the policy is about a checkpoint of this run, or of none."""
    if file.link or (run_id is None and not policy.runless):
        return False
    # Weights from elsewhere tell no place in a training. They are not its oldest checkpoint.
    return run_id is not None or file.metadata.step is not None or file.metadata.epoch is not None


def _safe(
    file: CheckpointReference,
    ours: Sequence[CheckpointReference],
    linked: Mapping[Version, str],
    protected: Mapping[str, str],
) -> Iterator[str]:
    """Yield why a file stays whatever the policy."""
    if file is ours[0]:
        yield "newest"
    if file.path in protected:
        yield protected[file.path]
    if file.pinned:
        yield "pinned"
    if file.version is not None and file.version in linked:
        yield f"{linked[file.version]} links to it"


def _left_alone(file: CheckpointReference, policy: RetentionPolicy) -> str:
    if file.link:
        return "a symbolic link"
    if not file.usable:
        return "unusable, so its content is unknown"
    if file.run_id is not None:
        return "belongs to a run" if policy.runless else "belongs to another run"
    return "has neither step nor epoch" if policy.runless else "belongs to no run"


def _apply_rules(
    policy: RetentionPolicy, ours: Sequence[CheckpointReference], reasons: dict[str, list[str]], now: datetime
) -> None:
    """Note each reason that a rule gives."""
    if policy.keep_last is not None:
        for file in ours[: policy.keep_last]:
            reasons[file.path].append(f"last {policy.keep_last}")
    if policy.best is not None:
        metric, mode, count = policy.best
        for file in best_first(ours, metric, mode)[:count]:
            reasons[file.path].append(f"best {metric} {(file.metadata.metrics or {})[metric]:.5g}")
    if policy.keep_every_steps is not None:
        for file in _first_of_each(ours, policy.keep_every_steps):
            reasons[file.path].append(f"every {policy.keep_every_steps} steps")
    if policy.keep_within is not None:
        for file in ours:
            if (why := _within(file, policy.keep_within, ours, now)) is not None:
                reasons[file.path].append(why)
    if all(rule is None for rule in (policy.keep_last, policy.best, policy.keep_every_steps, policy.keep_within)):
        for file in ours:
            reasons[file.path].append(_ANYHOW)


def _first_of_each(ours: Sequence[CheckpointReference], every: int) -> Iterator[CheckpointReference]:
    """Yield the first checkpoint of every `every` steps: a choice that later checkpoints do not change.

    Only if a later generation begins before it, there is another first one.
    """
    seen = {0}  # nothing is due before the first multiple
    for file in reversed(tuple(_not_redone(ours))):
        part = (file.metadata.step or 0) // every
        if part not in seen:
            seen.add(part)
            yield file


def _not_redone(ours: Iterable[CheckpointReference]) -> Iterator[CheckpointReference]:
    """Yield the checkpoints of a run, given the newest first, without those that a later generation began before.

    They belong to a program that had to give way to another one, which has done these steps again.
    """
    begun: tuple[float, float] = (math.inf, math.inf)
    for _, generation in groupby(ours, key=lambda file: file.metadata.generation):
        files = [(file, (file.metadata.step or 0, file.metadata.epoch or 0)) for file in generation]
        yield from (file for file, at in files if at < begun)
        begun = min(begun, *(at for _, at in files))


def _within(
    file: CheckpointReference, span: timedelta, ours: Sequence[CheckpointReference], now: datetime
) -> str | None:
    created = file.metadata.created
    if created is None:
        return "creation time unknown"
    end = min(now, max(other.metadata.created for other in ours if other.metadata.created is not None))
    return f"within {_span(span)}" if end - created <= span else None


def _beyond(
    policy: RetentionPolicy, ours: Sequence[CheckpointReference], reasons: dict[str, list[str]], safe: Collection[str]
) -> set[str]:
    """Return the paths of what has a reason to stay and yet goes, because there is no room for it."""
    if policy.max_bytes is None:
        return set()
    kept = [file for file in ours if reasons[file.path]]
    best = best_first(kept, *policy.best[:2])[: policy.best[2]] if policy.best is not None else []
    best_paths = [file.path for file in best]

    def worth(file: CheckpointReference) -> tuple[bool, int]:
        """Return what is given up first: the oldest that is not among the best, and of these the worst."""
        if file.path in best_paths:
            return (True, -best_paths.index(file.path))
        return (False, -kept.index(file))

    beyond: set[str] = set()
    total = distinct_bytes(kept)
    names = Counter(file.content_id for file in kept)
    for file in sorted(kept, key=worth):
        if total <= policy.max_bytes:
            break
        if file.path not in safe:
            beyond.add(file.path)
            names[file.content_id] -= 1
            if not names[file.content_id]:  # nothing of it stays under another name
                total -= file.file_bytes or 0
    return beyond


def _decision(
    file: CheckpointReference, policy: RetentionPolicy, reasons: Sequence[str], capped: Collection[str]
) -> Decision:
    if file.path in capped:
        wanted = ", ".join(why for why in reasons if why != _ANYHOW)
        room = f"no room within {_size(policy.max_bytes or 0)}"
        return Decision(file, False, (f"{room} for {wanted}" if wanted else room,))
    if reasons:
        return Decision(file, True, tuple(dict.fromkeys(reasons)))
    return Decision(file, False, (", ".join(_failed_rules(policy)),))


def _failed_rules(policy: RetentionPolicy) -> Iterator[str]:
    """Yield what a file is not that no rule keeps."""
    if policy.keep_last is not None:
        yield "older than the newest" if policy.keep_last == 1 else f"older than the last {policy.keep_last}"
    if policy.best is not None:
        metric, _, count = policy.best
        yield f"not the best {metric}" if count == 1 else f"not among the best {count} {metric}"
    if policy.keep_every_steps is not None:
        yield f"not the first of {policy.keep_every_steps} steps"
    if policy.keep_within is not None:
        yield f"older than {_span(policy.keep_within)}"


def _span(span: timedelta) -> str:
    for unit, length in _UNITS:
        if span % length == timedelta():
            return f"{span // length}{unit}"
    return f"{span.total_seconds():g}s"


def _size(nbytes: int) -> str:
    for unit, length in _SIZES:
        if nbytes % length == 0:
            return f"{nbytes // length} {unit}"
    return f"{nbytes:,} bytes"
