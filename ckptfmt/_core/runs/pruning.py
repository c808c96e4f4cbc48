"""Removing the checkpoints that a retention plan gives up, without ever losing the last good one (spec 15.6).

The order of events, each of which a kill or a power cut may follow:

1. Take the directory's prune lock. It keeps two programs from working on different plans at once; safety does not
   depend on it, and where there are no locks it is done without. (Each of two keeps the newest checkpoint that it saw
   to be sound, and removes only older ones. Whatever the order, the newest that any of them saw stays.)
2. Look at the directory anew and plan.
3. Verify what stays. If something turns out to be damaged it does not count as kept: plan anew without it.
4. Flush the newest that stays, and the directory, to stable storage: a writer may have renamed it and not yet flushed.
5. Remove one file after the other, the oldest first. For each, take the directory's lock, look whether it is still the
   same file and still has no pin, whether this process still holds the run if it saves one, and unlink. Pins are set
   under the same lock, and runs claimed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

from ckptfmt._core.runs.retention import RetentionPlan, RetentionPolicy, plan_retention
from ckptfmt._core.runs.scan import OURS, PIN, CheckpointFile, Look, Stamp, distinct_bytes, reason, scan, verified
from ckptfmt._core.storage.local.durability import flush_directory, flush_file
from ckptfmt._core.storage.local.lock import directory_lock, prune_lock
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.paths import is_gone
from ckptfmt.errors import CkptfmtError, StorageError

__all__ = ["Failure", "RetentionReport", "apply_retention", "prune_run"]

VerifyProgress = Callable[[str, int], None]
"""Called with a path and how many more logical bytes of that file are checked."""

Guard = Callable[[], AbstractContextManager[None]]
"""Takes the lock of the directory, and raises if nothing may be removed there any more."""

Verify = Callable[[CheckpointFile, Callable[[int], None] | None], CheckpointFile]
"""Returns what is known of a usable checkpoint after every byte of it was read (see `runs.scan.verified`)."""


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
    removed: tuple[CheckpointFile, ...] = ()
    failed: tuple[Failure, ...] = ()
    hindered: str | None = None
    known: tuple[CheckpointFile, ...] = ()

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
    known: Collection[CheckpointFile] = (),
    guard: Guard | None = None,
    protected: Mapping[str, str] = MappingProxyType({}),
    unreadable: Mapping[str, CkptfmtError] = MappingProxyType({}),
) -> RetentionReport:
    """Apply a policy to a run after a save. It never raises because of a file: the training goes on.

    It is made to be called after each save. With `known`, only files that are new are opened. At least one checkpoint
    that stays was read back to the last byte: this costs one reading of the newest, each time that the last one that
    was read back is due to go. Nothing is waited for: if another process is removing checkpoints here, nothing is
    removed this time.

    Args:
        directory: The directory of the run.
        run_id: The run; `policy.run_id` does not count.
        policy: What to keep.
        just_written: The checkpoint that was just published. It stays in any case, and unless it is there and sound
            as far as its index tells, nothing is removed.
        known: `known` of the last report.
        guard: Held while a file is removed; None: the lock of the directory. What it raises, other than a
            `StorageError`, is raised here.
        protected: Paths of files that stay in any case, and why.
        unreadable: Paths of files that are known to be unreadable although their indexes can be read, and why. They
            stay, and count for nothing.
    """
    name = os.fspath(directory)
    path = str(Path(directory, Path(just_written).name))
    files: tuple[CheckpointFile, ...] = tuple(known)
    plan = None
    try:
        with prune_lock(name):
            files = scan(name, known)
            found = tuple(replace(file, error=file.error or unreadable.get(file.path)) for file in files)
            safe = {**protected, path: "just written"}
            files, plan = _settle(found, replace(policy, run_id=run_id), _one_that_stays, protected=safe)
            if all(file.path != path for file in plan.kept):
                return RetentionReport(name, plan, hindered=_missing(path, files), known=files)
            return _carry_out(name, plan, plan.removed, files, guard or partial(directory_lock, name))
    except StorageError as error:
        return RetentionReport(name, plan, hindered=str(error), known=files)


def apply_retention(
    directory: str | os.PathLike[str],
    policy: RetentionPolicy,
    agreed: Collection[CheckpointFile],
    *,
    wait_seconds: float = 0.0,
    now: datetime | None = None,
    progress: VerifyProgress | None = None,
    looks: Mapping[str, Look] = OURS,
    verify: Verify = verified,
) -> RetentionReport:
    """Apply a policy to a directory in which others may be at work: every byte of what stays is verified first.

    Args:
        directory: The directory.
        policy: What to keep.
        agreed: What may be removed. The plan is made anew; what it gives up beyond this stays.
        wait_seconds: How long to wait for another process that is removing checkpoints here.
        now: The present, aware; the clock's if None.
        progress: Called while files are verified.
        looks: Which files count (see `runs.scan.scan`).
        verify: Reads a usable checkpoint, as `runs.scan.verified` does.

    Raises:
        LockedError: Another process is removing checkpoints here.
        StorageError: The directory cannot be listed or locked, or what stays cannot be made durable.
    """
    name = os.fspath(directory)
    stamps = {file.path: file.stamp for file in agreed}
    with prune_lock(name, wait_seconds=wait_seconds):
        found = scan(name, looks=looks)
        files, plan = _settle(found, policy, _all_that_stay, now=now, progress=progress, verify=verify)
        removed = [file for file in plan.removed if file.path in stamps and stamps[file.path] == file.stamp]
        return _carry_out(name, plan, removed, files, partial(directory_lock, name))


def _settle(
    files: tuple[CheckpointFile, ...],
    policy: RetentionPolicy,
    to_verify: Callable[[RetentionPlan], Iterable[CheckpointFile]],
    *,
    now: datetime | None = None,
    protected: Mapping[str, str] = MappingProxyType({}),
    progress: VerifyProgress | None = None,
    verify: Verify = verified,
) -> tuple[tuple[CheckpointFile, ...], RetentionPlan]:
    """Plan, verify what has to be, and plan anew until nothing is left to verify."""
    while True:
        plan = plan_retention(files, policy, now=now, protected=protected)
        # To go on with a smaller run once its last checkpoint proved damaged would be to remove another run's.
        if not policy.runless and plan.run_id is not None:
            policy = replace(policy, run_id=plan.run_id)
        file = next(iter(to_verify(plan)), None)
        if file is None:
            return files, plan
        found = verify(file, None if progress is None else partial(progress, file.path))
        others = [other for other in files if other.path != found.path]
        gone = not found.usable and is_gone(found.path)  # by another hand, which says nothing against it
        files = tuple(others) if gone else tuple(found if other.path == found.path else other for other in files)


def _all_that_stay(plan: RetentionPlan) -> Iterable[CheckpointFile]:
    return [file for file in plan.kept if not file.verified] if plan.removed else []


def _one_that_stays(plan: RetentionPlan) -> Iterable[CheckpointFile]:
    return plan.kept[:1] if plan.removed and not any(file.verified for file in plan.kept) else []


def _missing(path: str, files: Iterable[CheckpointFile]) -> str:
    for file in files:
        if file.path == path and file.error is not None:
            return f"{path}: nothing was removed because the new checkpoint is damaged: {reason(file.error, path)}"
    return f"{path}: nothing was removed because the new checkpoint is not there or is none of this run"


def _carry_out(
    directory: str,
    plan: RetentionPlan,
    doomed: Iterable[CheckpointFile],
    files: Iterable[CheckpointFile],
    guard: Guard,
) -> RetentionReport:
    doomed = tuple(doomed)
    removed: list[CheckpointFile] = []
    failed: list[Failure] = []
    if doomed:
        _make_durable(plan.kept[0].path)
    for file in doomed:
        why = _remove(file, guard)
        if why is None:
            removed.append(file)
        else:
            failed.append(Failure(file.path, why))
    gone = {file.path for file in removed}
    left = tuple(file for file in files if file.path not in gone)
    return RetentionReport(directory, plan, tuple(removed), tuple(failed), known=left)


def _make_durable(path: str) -> None:
    """Wait until a published file and its name are on stable storage.

    Raises:
        StorageError: They may not be.
    """
    try:
        # Windows flushes only what is open for writing.
        descriptor = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | getattr(os, "O_CLOEXEC", 0))
        try:
            flush_file(descriptor)
            flush_directory(Path(path).parent, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(path, "cannot be made durable, so nothing older is removed", error) from error


def _remove(file: CheckpointFile, guard: Guard) -> str | None:
    """Remove a file; return why not, if not."""
    try:
        with guard():
            return _remove_under_lock(file)
    except StorageError as error:
        return reason(error, file.path)


def _remove_under_lock(file: CheckpointFile) -> str | None:
    if Stamp.of(file.path) != file.stamp or file.stamp is None:
        return "it has changed meanwhile"
    if not is_gone(file.path + PIN):
        return "it was pinned meanwhile"
    try:
        Path(file.path).unlink()
    except FileNotFoundError:
        return None  # by another hand: it is gone, as it should be
    except OSError as error:
        return reason(storage_error(file.path, "cannot be removed", error), file.path)
    return None
