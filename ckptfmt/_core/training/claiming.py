"""The right to save a run: claimed by each resume, checked before each publication and removal.

A process that resumes a run takes it over from all earlier processes: it claims the next *generation*. A superseded
process publishes and removes nothing more, even in the middle of a save. Precedence thus depends neither on clocks nor
on steps.

A run can be taken over if its holder is dead, belongs to the same job, or has lost its launcher. A live holder that
belongs to another job, or to none, keeps the run, unless the new process insists (`takeover=True`).
"""

from __future__ import annotations

import errno
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from ckptfmt._core.storage.leases import holders
from ckptfmt._core.storage.leases.base import Leases
from ckptfmt._core.storage.leases.hold import Hold
from ckptfmt._core.storage.leases.lease import Lease
from ckptfmt._core.storage.resolve import leases_in
from ckptfmt._core.system.forks import release_in_children
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.run_directory import place_of_run
from ckptfmt.errors import HeldError, LeaseError, LockedError, StorageError, SupersededError

__all__ = ["RunClaim", "new_run_id"]

T = TypeVar("T")

_ATTEMPTS = 100
_PAUSES_SECONDS = (0.2, 1.0)  # an error of a file server may be transient
_NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})


class _Claims:
    """All claims that this process made, valid or not. Claims of its parent do not count."""

    def __init__(self) -> None:
        self._made: set[str] = set()
        release_in_children(self)

    def __contains__(self, claim: object) -> bool:
        return claim in self._made

    def make(self) -> str:
        """Return a unique claim."""
        claim = secrets.token_hex(16)
        self._made.add(claim)
        return claim

    def release_in_child(self) -> None:
        """Forget all claims in a forked child."""
        self._made.clear()


_own = _Claims()


class RunClaim:
    """The claim of this process to a run. Only the rank that writes holds it.

    Args:
        directory: Directory of the run.

    Attributes:
        generation: Generation of this process's saves; None before the run is claimed.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lease: Lease | None = None
        self._hold: Hold | None = None
        self._run_id: str | None = None
        self._place = place_of_run(directory)
        self._leases = leases_in(directory)
        self._floor = 0
        release_in_children(self)

    @property
    def directory(self) -> str:
        """Directory of the run."""
        return self._directory

    @property
    def generation(self) -> int | None:
        """Generation of this process's saves; None before the run is claimed."""
        return None if self._lease is None else self._lease.generation

    def take(self, run_id: str | None, floor: int = 0, *, takeover: bool = False) -> str:
        """Claim a run. If the directory is not writable, report it and return: saves fail until it is.

        Args:
            run_id: Id of the run; None for a new run, or for one that another process has started here and not saved
                yet.
            floor: Latest known generation of its checkpoints; 0 if they have none.
            takeover: Take the run over from any holder.

        Returns:
            Id of the run.

        Raises:
            HeldError: Another live process holds the run.
            StorageError: The holder cannot be read, even after several tries.
        """
        self.release()
        self._lease, self._floor = None, floor
        try:
            _patiently(self._place.note)
            self._lease = _patiently(lambda: self._claim(run_id, takeover=takeover))
        except HeldError as error:
            notify(str(error), logging.ERROR)  # uncaught, it ends the process silently
            raise
        except StorageError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
            self._run_id = run_id or new_run_id()
            notify(f"{error}; the run cannot be saved until this is resolved", logging.ERROR)
        else:
            self._run_id = self._lease.run_id
        return self._run_id

    def renew(self) -> int:
        """Return the generation to save as; claim the run if it is not claimed yet or was released.

        Raises:
            SupersededError: Another process has the run.
            StorageError: The run cannot be claimed now.
        """
        if self._lease is not None and self._hold is not None:
            return self._lease.generation  # without reading the directory: training waits for this
        self._require_directory()
        if self._lease is None:
            assert self._run_id is not None, "the run was not resumed"
            try:
                self._lease = self._claim(self._run_id, takeover=False)
            except HeldError as error:
                raise SupersededError(str(error)) from None
        else:
            with self._leases.lock():
                self._republish(self._lease, self._check())
        return self._lease.generation

    def prepare(self) -> None:
        """Check that the run may be saved before the work starts: the directory exists, and this process holds the run.

        Raises:
            SupersededError: Another process has the run.
            StorageError: The directory is gone, cannot be read, or cannot be recreated.
        """
        self._require_directory()
        with self.held():
            pass

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory lock and the run. Publish and remove only inside.

        Raises:
            SupersededError: Another process has the run.
            StorageError: The holder of the run is unknown.
        """
        with self._leases.lock():
            self._check()
            yield

    def release(self) -> None:
        """Release the run, so that other processes can claim it. A later save claims it again. Never raises."""
        hold, self._hold = self._hold, None
        if hold is None or self._lease is None:
            return
        try:
            with suppress(Exception), self._leases.lock():  # if not, others watch the holder
                lease = self._leases.read(self._lease.run_id)
                if lease is not None and lease.claim == self._lease.claim:
                    released = self._leases.publish(replace(lease, holder=None), lease, durably=False)
                    if released is not None:
                        released.close()
        finally:
            hold.close()

    def release_in_child(self) -> None:
        """Leave the run to the parent in a forked child: closing the child's copies must not release it."""
        self._hold = None

    def _claim(self, run_id: str | None, *, takeover: bool) -> Lease:
        for _ in range(_ATTEMPTS):
            seen = self._find(run_id)
            before, notice = self._judge(seen, takeover=takeover, named=run_id is not None)
            with self._leases.lock():
                if self._find(run_id) != seen:
                    continue  # another process was faster: judge again
                lease = self._next(run_id, before)
                if not self._publish(lease, before):
                    continue
            if notice:
                notify(notice)
            return lease
        raise LockedError(f"{self._directory}: other processes keep claiming the run; end them")

    def _find(self, run_id: str | None) -> Lease | None:
        """Return the lease of a run; without an id, the last lease here of another process, dead or alive."""
        if run_id is not None:
            return self._leases.read(run_id)
        others = [it for it in self._leases.all() if it.holder is not None and it.claim not in _own]
        return max(others, key=lambda it: "" if it.holder is None else it.holder.since, default=None)

    def _judge(self, seen: Lease | None, *, takeover: bool, named: bool) -> tuple[Lease | None, str]:
        """Return the lease to succeed, if any, and the notice to show; empty if none.

        Args:
            seen: The present lease.
            takeover: Whether it may be taken over in any case.
            named: Whether the caller named its run. Otherwise the lease matters only if its holder is alive.

        Raises:
            HeldError: The run may not be taken over.
        """
        if seen is None or seen.holder is None or seen.claim in _own:
            return seen, ""
        holder = seen.holder
        run = f"{self._directory}: run {seen.run_id}"
        elsewhere = holders.may_live_elsewhere(holder)
        same_job = holder.job is not None and holder.job == holders.this_process().job
        patience = 0.0 if same_job or takeover or not elsewhere else holders.WATCH_SECONDS
        if patience:
            notify(
                f"{run} was last saved by {holder}; checking for up to {patience:.0f} s whether it is alive",
                logging.INFO,
            )
        alive = self._leases.seems_alive(seen, watch_seconds=patience)
        if not alive and not named:
            return None, ""
        if not alive and not elsewhere:
            return seen, ""
        if not alive:
            why = "shows no sign of life"
        elif takeover:
            why = "is alive (takeover=True)"
        elif same_job:
            why = "is alive and of the same job"
        elif holders.is_orphan(holder):
            why = "is alive but has lost its launcher"
        else:
            raise HeldError(
                f"{run} is being saved by {holder}, which is alive; nothing was changed; end it first, pass another "
                "directory or run_id=, or take over the run with resume(takeover=True), which ends that process at its "
                "next save; to only read a checkpoint, use ckptfmt.torch.restore() or load()",
                holder.host,
                holder.pid,
            )
        return seen, f"{run} is taken over from {holder}, which {why}; if it still runs, it ends at its next save"

    def _next(self, run_id: str | None, before: Lease | None) -> Lease:
        run_id = run_id or (new_run_id() if before is None else before.run_id)
        generation = max(0 if before is None else before.generation, self._floor) + 1
        return Lease(run_id, generation, _own.make(), holders.this_process())

    def _publish(self, lease: Lease, before: Lease | None) -> bool:
        """Replace a lease, and return whether it was still there; the lock must be held."""
        hold = self._leases.publish(lease, before)
        if hold is None:
            return False
        old, self._hold = self._hold, hold
        if old is not None:
            old.close()
        self._keep_alive(hold, lease)
        return True

    def _republish(self, mine: Lease, before: Lease | None) -> None:
        """Put the lease of this process in the place of another content; the lock must be held.

        Raises:
            StorageError: Another process has changed it meanwhile.
        """
        if not self._publish(mine, before):
            raise StorageError(f"{self._directory}: another process is claiming run {mine.run_id}; save again")

    def _keep_alive(self, hold: Hold, lease: Lease) -> None:
        """Show other processes that this one is alive."""
        directory, leases = self._directory, self._leases
        hold.keep_alive(lambda: _report_loss(directory, leases, lease))

    def _check(self) -> Lease:
        """Check that this process still holds the run, and return the lease that is there; the lock must be held."""
        mine = self._lease
        if mine is None:
            raise StorageError(f"{self._directory}: the run is not claimed; resume it first")
        found = self._read_own(mine)
        if found is None:
            self._place.report_if_replaced()
            self._republish(mine, None)
            return mine
        if found.claim != mine.claim:
            if not self._is_of_the_past(found, mine):
                raise SupersededError(_loss(self._directory, mine, found))
            self._republish(mine, found)
            return mine
        if self._hold is not None:
            self._keep_alive(self._hold, mine)  # it may have had no thread until now
        return found

    def _read_own(self, mine: Lease) -> Lease | None:
        """Return the present lease; None for a damaged one, which its holder repairs.

        Raises:
            StorageError: The lease cannot be read or parsed.
        """
        try:
            return self._leases.read(mine.run_id)
        except LeaseError:
            if self._hold is None or not self._leases.make_room(mine.run_id):
                raise
            path = self._leases.path(mine.run_id)
            notify(f"{path}: damaged; this process holds the run and rewrites it")
            return None

    def _is_of_the_past(self, found: Lease, mine: Lease) -> bool:
        """Return whether a lease is an earlier one of a dead process, as restored from a backup."""
        if found.generation >= mine.generation:
            return False
        try:
            return not self._leases.seems_alive(found, watch_seconds=0)
        except StorageError:
            return False

    def _require_directory(self) -> None:
        """Check that the directory of the run exists before a lock is created in it."""
        self._place.prepare(None if self._lease is None else self._leases.path(self._lease.run_id))


def new_run_id() -> str:
    """Return a unique run id."""
    # From the operating system: the run's own generators must not advance.
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def _patiently(act: Callable[[], T]) -> T:
    """Call a function and return its result; retry transient errors."""
    for pause in _PAUSES_SECONDS:
        try:
            return act()
        except StorageError as error:
            if error.errno is None or error.errno in _NOT_WRITABLE:
                raise
        time.sleep(pause)
    return act()


def _loss(directory: str, mine: Lease, found: Lease) -> str:
    by = "another Checkpointer of this process" if found.claim in _own else str(found.holder or "another process")
    return (
        f"{directory}: run {mine.run_id} was taken over by {by}, as generation {found.generation}; this process is "
        f"generation {mine.generation}"
    )


def _report_loss(directory: str, leases: Leases, mine: Lease) -> None:
    with suppress(StorageError):
        found = leases.read(mine.run_id)
        if found is not None and found.claim != mine.claim and found.claim not in _own:
            notify(f"{_loss(directory, mine, found)}; it writes nothing more and ends at its next save", logging.ERROR)
