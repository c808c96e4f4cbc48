"""A retention policy applied to a directory: planned, reported, and carried out (spec 15.6)."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from ckptfmt._core.catalog import scan_all
from ckptfmt._core.ops.progress import Progress, Report
from ckptfmt._core.ops.report_json import metadata_json
from ckptfmt._core.pruning import RetentionReport, apply_retention
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import Decision, RetentionPlan, RetentionPolicy, plan_retention
from ckptfmt._core.runs.scan import reason, run_ids
from ckptfmt._core.storage.resolve import store_for
from ckptfmt.errors import UsageError

__all__ = ["PrunePlan", "PruneResult", "apply_prune", "plan_prune"]


@dataclass(frozen=True)
class PrunePlan:
    """Plan of a prune, based on the index of each file.

    Attributes:
        directory: The directory, as it was named.
        policy: What to keep.
        plan: The decisions, with their reasons.
        inert: See `interop.opening.open_tensors`.
    """

    directory: str
    policy: RetentionPolicy
    plan: RetentionPlan
    inert: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the plan in JSON.

        Keys: `report` (`"prune/1"`), `directory`, `run_id` (or null), `decisions` (array of objects: `path`, `keep`,
        `concerned` (whether the policy applies to it), `reasons` (array), `file_bytes` (or null), `pinned`, `verified`
        (whether every byte of it was verified), `metadata` (see `metadata_json`)), `frees_bytes` (length
        of all that the plan removes), `applied` (false), `removed`, `failed`, `damaged`, `spared` and `leftovers`
        (empty arrays), `freed_bytes` (0).
        """
        return {
            "report": "prune/1",
            "directory": self.directory,
            "run_id": self.plan.run_id,
            "decisions": [_decision_json(decision) for decision in self.plan.decisions],
            "frees_bytes": self.plan.freed_bytes,
            "applied": False,
            "removed": [],
            "failed": [],
            "damaged": [],
            "spared": [],
            "leftovers": [],
            "freed_bytes": 0,
        }


@dataclass(frozen=True)
class PruneResult:
    """Report of a prune.

    Attributes:
        planned: The plan that was confirmed.
        report: The outcome. Its plan is the one that was carried out, made after what stays was verified.
        leftovers: Unfinished files whose writers are gone, removed as well.
    """

    planned: PrunePlan
    report: RetentionReport
    leftovers: tuple[str, ...] = ()

    @property
    def plan(self) -> RetentionPlan:
        """The plan that was carried out."""
        return self.report.plan or self.planned.plan

    @property
    def complete(self) -> bool:
        """Whether all that was agreed to is gone."""
        gone = {file.path for file in self.report.removed}
        return all(file.path in gone for file in self.planned.plan.removed)

    @property
    def damaged(self) -> tuple[CheckpointReference, ...]:
        """What was planned to be kept, or removed, and proved to be damaged. It is left alone."""
        before = {decision.file.path for decision in self.planned.plan.decisions if decision.file.usable}
        return tuple(item.file for item in self.plan.decisions if not item.file.usable and item.file.path in before)

    @property
    def spared(self) -> tuple[CheckpointReference, ...]:
        """What was agreed to be removed and is kept after all, because something else proved to be damaged."""
        agreed = {file.path for file in self.planned.plan.removed}
        return tuple(item.file for item in self.plan.decisions if item.keep and item.file.path in agreed)

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: those of `PrunePlan.to_json`, of the plan that was carried out, with `applied` true, `removed` (array of
        paths, in the order of removal), `failed` (array of objects with `path` and `reason`), `damaged` (likewise: what
        turned out to be damaged and is left alone), `spared` (array of paths that the plan removes and that are kept in
        place of what is damaged), `leftovers` (array of paths: unfinished files whose writers are gone, removed too),
        and `freed_bytes` (without these).
        """
        return {
            **replace(self.planned, plan=self.plan).to_json(),
            "applied": True,
            "removed": [file.path for file in self.report.removed],
            "failed": [{"path": failure.path, "reason": failure.reason} for failure in self.report.failed],
            "damaged": [{"path": file.path, "reason": _reason(file)} for file in self.damaged],
            "spared": [file.path for file in self.spared],
            "leftovers": list(self.leftovers),
            "freed_bytes": self.report.freed_bytes,
        }


def _reason(file: CheckpointReference) -> str:
    assert file.error is not None  # the file would not count as damaged
    return reason(file.error, file.path)


def plan_prune(
    directory: str | os.PathLike[str],
    policy: RetentionPolicy,
    *,
    inert: Collection[str] = (),
    now: datetime | None = None,
) -> PrunePlan:
    """Return the plan of a policy for a directory. Nothing is changed; only structure and index of each file are read.

    Files of any format count. If no checkpoint belongs to a run, the policy applies to those without one.

    Args:
        directory: The directory.
        policy: What to keep.
        inert: See `interop.opening.open_tensors`.
        now: The present, aware; the clock's if None.

    Raises:
        StorageError: The directory cannot be listed.
        UsageError: No checkpoint has the metric of the policy, so that the best one would be removed.
    """
    files = scan_all(directory, inert=inert)
    if policy.run_id is None and not run_ids(files):
        policy = replace(policy, runless=True)
    plan = plan_retention(files, policy, now=now)
    if policy.keep_best is not None:
        _require_metric(policy.keep_best[0], plan)
    return PrunePlan(os.fspath(directory), policy, plan, tuple(inert))


def _require_metric(name: str, plan: RetentionPlan) -> None:
    """Refuse a metric that no checkpoint has: most likely its name is wrong."""
    concerned = [decision.file.metadata.metrics or {} for decision in plan.decisions if decision.concerned]
    there = dict.fromkeys(metric for metrics in concerned for metric in metrics)
    if concerned and name not in there:
        raise UsageError(f"no checkpoint has a metric {name!r}; choose from: {', '.join(there) or 'none'}")


def apply_prune(
    planned: PrunePlan,
    *,
    wait_seconds: float = 0.0,
    now: datetime | None = None,
    progress: Report | None = None,
) -> PruneResult:
    """Carry out a plan that was confirmed (see `pruning` for what can never happen).

    First, every byte of what stays is verified. If a checkpoint turns out to be damaged, a new plan is made without
    it; it never removes more than what was confirmed. Unfinished files whose writers are gone are removed as well.

    Args:
        planned: The plan.
        wait_seconds: How long to wait for another process that is removing checkpoints here.
        now: The present, aware; the clock's if None.
        progress: Called with the progress.

    Raises:
        LockedError: Another process is removing checkpoints here.
        StorageError: The directory cannot be listed or locked, or what stays cannot be made durable.
    """
    report = apply_retention(
        planned.directory,
        planned.policy,
        planned.plan.removed,
        wait_seconds=wait_seconds,
        now=now,
        progress=None if progress is None else _Reading(planned.plan, progress).advance,
        inert=planned.inert,
    )
    return PruneResult(planned, report, store_for(planned.directory).clean())


class _Reading:
    """Turns what is read of each file into the progress of all."""

    def __init__(self, plan: RetentionPlan, report: Report) -> None:
        self._sizes = {decision.file.path: decision.file.file_bytes or 0 for decision in plan.decisions}
        self._read = {file.path: 0 for file in plan.kept}
        self._report = report

    def advance(self, path: str, nbytes: int) -> None:
        """Count bytes of a file as read."""
        self._read[path] = min(self._read.get(path, 0) + nbytes, self._sizes.get(path, 0))
        total = sum(self._sizes.get(path, 0) for path in self._read)
        self._report(Progress(path, sum(self._read.values()), total))


def _decision_json(decision: Decision) -> dict[str, object]:
    file = decision.file
    return {
        "path": file.path,
        "keep": decision.keep,
        "concerned": decision.concerned,
        "reasons": list(decision.reasons),
        "file_bytes": file.file_bytes,
        "pinned": file.pinned,
        "verified": file.verified,
        "metadata": metadata_json(file.metadata),
    }
