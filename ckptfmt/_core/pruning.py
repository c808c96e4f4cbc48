"""Removing the checkpoints that a retention plan gives up, without ever losing the last good one (spec 15.6).

The order of events, each of which a kill or a power cut may follow:

1. Take the directory's prune lock. It keeps two programs from working on different plans at once; safety does not
   depend on it, and where there are no locks it is done without. (Each of two keeps the newest checkpoint that it saw
   to be sound, and removes only older ones. Whatever the order, the newest that any of them saw stays.)
2. Look at the directory anew and plan.
3. Verify what stays. If something turns out to be damaged it does not count as kept: plan anew without it.
4. Flush the newest that stays, and the directory, to stable storage: a writer may have renamed it and not yet flushed.
5. Remove one checkpoint after the other, the oldest first. For each, take the directory's lock, look whether it is
   still the same and still has no pin, whether this process still holds the run if it saves one, and remove it: of
   several files the first one goes first, which stands for all of them, so that what is left of it is no checkpoint.
   Pins are set under the same lock, and runs claimed.

Whatever is a directory here may be any other store: each step is a verb of `storage.base.Store`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType

from ckptfmt._core.catalog import scan_all, verified_all
from ckptfmt._core.runs.pins import is_pinned
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import RetentionPlan, RetentionPolicy, plan_retention
from ckptfmt._core.runs.scan import distinct_bytes, reason, scan
from ckptfmt._core.storage.base import Guard, Store
from ckptfmt._core.storage.resolve import is_gone, name_of, store_for
from ckptfmt.errors import CkptfmtError, StorageError

__all__ = ["Failure", "RetentionReport", "apply_retention", "prune_run"]

VerifyProgress = Callable[[str, int], None]
"""Called with a path and how many more logical bytes of that file are checked."""


@dataclass(frozen=True)
class Failure:
    """A file that should have been removed and was not, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class RetentionReport:
    """What was removed, and what was not.

    Attributes:
        directory: The directory.
        plan: The plan that was carried out; None if it did not come to one.
        removed: What was removed, in this order.
        failed: What should have been removed and could not be.
        hindered: Why nothing was removed although something should have been, if so.
        known: What is known of the files that are left: give it to the next call.
    """

    directory: str
    plan: RetentionPlan | None
    removed: tuple[CheckpointReference, ...] = ()
    failed: tuple[Failure, ...] = ()
    hindered: str | None = None
    known: tuple[CheckpointReference, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """Length of all files that were removed; what is left under another name is not among it."""
        return distinct_bytes((*self.removed, *self.known)) - distinct_bytes(self.known)


def prune_run(
    directory: str | os.PathLike[str],
    run_id: str,
    policy: RetentionPolicy,
    *,
    just_written: str | os.PathLike[str],
    known: Collection[CheckpointReference] = (),
    guard: Guard | None = None,
    protected: Mapping[str, str] = MappingProxyType({}),
    unreadable: Mapping[str, CkptfmtError] = MappingProxyType({}),
) -> RetentionReport:
    """Apply a policy to a run after a save. It never raises because of a file: the training goes on.

    It is made to be called after each save. With `known`, only files that are new are opened. At least one checkpoint
    that stays was read back to the last byte: this costs one reading of the newest, each time that the last one that
    was read back is due to go. Where reads need a network, the new checkpoint counts as read back once its length and
    its index are right. Nothing is waited for: if another process is removing checkpoints here, nothing is removed
    this time.

    Args:
        directory: The directory of the run.
        run_id: The run; `policy.run_id` does not count.
        policy: What to keep.
        just_written: The checkpoint that was just published. It stays in any case, and unless it is there and sound
            as far as its index tells, nothing is removed.
        known: `known` of the last report.
        guard: Held while a checkpoint is removed: it takes the lock of the directory, and raises if nothing may be
            removed there any more. None: the lock alone. What it raises, other than a `StorageError`, is raised here.
        protected: Paths of files that stay in any case, and why.
        unreadable: Paths of files that are known to be unreadable although their indexes can be read, and why. They
            stay, and count for nothing.
    """
    name = os.fspath(directory)
    store = store_for(directory)
    path = store.path(name_of(os.fspath(just_written)))
    files: tuple[CheckpointReference, ...] = tuple(known)
    plan = None
    try:
        with store.prune_lock():
            files = scan(name, known)
            found = tuple(replace(file, error=file.error or unreadable.get(file.path)) for file in files)
            if not store.properties.local_reads:
                found = tuple(replace(file, verified=file.verified or file.path == path) for file in found)
            safe = {**protected, path: "just written"}
            files, plan = _settle(found, replace(policy, run_id=run_id), _one_that_stays, protected=safe)
            if all(file.path != path for file in plan.kept):
                return RetentionReport(name, plan, hindered=_missing(path, files), known=files)
            return _carry_out(store, plan, plan.removed, files, guard or store.lock)
    except StorageError as error:
        return RetentionReport(name, plan, hindered=str(error), known=files)


def apply_retention(
    directory: str | os.PathLike[str],
    policy: RetentionPolicy,
    agreed: Collection[CheckpointReference],
    *,
    wait_seconds: float = 0.0,
    now: datetime | None = None,
    progress: VerifyProgress | None = None,
    inert: Collection[str] = (),
) -> RetentionReport:
    """Apply a policy to a directory in which others may be at work: every byte of what stays is verified first.

    Checkpoints of any format count.

    Args:
        directory: The directory.
        policy: What to keep.
        agreed: What may be removed. The plan is made anew; what it gives up beyond this stays.
        wait_seconds: How long to wait for another process that is removing checkpoints here.
        now: The present, aware; the clock's if None.
        progress: Called while files are verified.
        inert: Names in pickles to keep as inert data (see `pth.reading.read_state`).

    Raises:
        LockedError: Another process is removing checkpoints here.
        StorageError: The directory cannot be listed or locked, or what stays cannot be made durable.
    """
    name = os.fspath(directory)
    store = store_for(directory)
    stamps = {file.path: file.files for file in agreed}
    with store.prune_lock(wait_seconds=wait_seconds):
        found = scan_all(name, inert=inert)
        files, plan = _settle(found, policy, _all_that_stay, now=now, progress=progress, inert=inert)
        removed = [file for file in plan.removed if file.path in stamps and stamps[file.path] == file.files]
        return _carry_out(store, plan, removed, files, store.lock)


def _settle(
    files: tuple[CheckpointReference, ...],
    policy: RetentionPolicy,
    to_verify: Callable[[RetentionPlan], Iterable[CheckpointReference]],
    *,
    now: datetime | None = None,
    protected: Mapping[str, str] = MappingProxyType({}),
    progress: VerifyProgress | None = None,
    inert: Collection[str] = (),
) -> tuple[tuple[CheckpointReference, ...], RetentionPlan]:
    """Plan, verify what has to be, and plan anew until nothing is left to verify."""
    while True:
        plan = plan_retention(files, policy, now=now, protected=protected)
        # To go on with a smaller run once its last checkpoint proved damaged would be to remove another run's.
        if not policy.runless and plan.run_id is not None:
            policy = replace(policy, run_id=plan.run_id)
        file = next(iter(to_verify(plan)), None)
        if file is None:
            return files, plan
        found = verified_all(file, None if progress is None else partial(progress, file.path), inert=inert)
        others = [other for other in files if other.path != found.path]
        gone = not found.usable and is_gone(found.path)  # by another hand, which says nothing against it
        files = tuple(others) if gone else tuple(found if other.path == found.path else other for other in files)


def _all_that_stay(plan: RetentionPlan) -> Iterable[CheckpointReference]:
    return [file for file in plan.kept if not file.verified] if plan.removed else []


def _one_that_stays(plan: RetentionPlan) -> Iterable[CheckpointReference]:
    return plan.kept[:1] if plan.removed and not any(file.verified for file in plan.kept) else []


def _missing(path: str, files: Iterable[CheckpointReference]) -> str:
    for file in files:
        if file.path == path and file.error is not None:
            return f"{path}: nothing was removed because the new checkpoint is damaged: {reason(file.error, path)}"
    return f"{path}: nothing was removed because the new checkpoint is not there or is none of this run"


def _carry_out(
    store: Store,
    plan: RetentionPlan,
    doomed: Iterable[CheckpointReference],
    files: Iterable[CheckpointReference],
    guard: Guard,
) -> RetentionReport:
    doomed = tuple(doomed)
    removed: list[CheckpointReference] = []
    failed: list[Failure] = []
    if doomed:
        _make_durable(store, plan.kept[0])
    for file in doomed:
        gone, failure = _remove(store, file, guard)
        if gone:
            removed.append(file)
        if failure is not None:
            failed.append(failure)
    away = {file.path for file in removed}
    left = tuple(file for file in files if file.path not in away)
    return RetentionReport(store.location, plan, tuple(removed), tuple(failed), known=left)


def _make_durable(store: Store, file: CheckpointReference) -> None:
    """Wait until all files of a published checkpoint are on stable storage.

    Raises:
        StorageError: They may not be.
    """
    for name in (*(part.name for part in file.parts), file.name):
        try:
            store.make_durable(name)
        except StorageError as error:
            path = store.path(name)
            told = StorageError(f"{path}: nothing older is removed: {reason(error, path)}")
            told.errno = error.errno
            raise told from error


def _remove(store: Store, file: CheckpointReference, guard: Guard) -> tuple[bool, Failure | None]:
    """Remove a checkpoint; say whether it is gone, and what of it is left and why."""
    try:
        with guard():
            why = _changed_or_pinned(store, file)
            if why is not None:
                return False, Failure(file.path, why)
            return _remove_files(store, file)
    except StorageError as error:
        return False, Failure(file.path, reason(error, file.path))


def _changed_or_pinned(store: Store, file: CheckpointReference) -> str | None:
    """Return why a checkpoint must not be removed after all; None if nothing is in the way."""
    if file.version is None or any(store.look(it.name) != it for it in file.files):
        return "it has changed meanwhile"
    if is_pinned(store, file):
        return "it was pinned meanwhile"
    return None


def _remove_files(store: Store, file: CheckpointReference) -> tuple[bool, Failure | None]:
    gone = False
    for it in file.files:
        try:
            store.remove(it.name, it.version)
        except StorageError as error:
            path = store.path(it.name)
            return gone, Failure(path, reason(error, path))
        gone = True  # with the first one, the checkpoint is no more
    return gone, None
