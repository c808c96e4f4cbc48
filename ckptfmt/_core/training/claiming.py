"""The right to save a run: claimed by each resume, and looked up before each publication and each removal.

The process that resumes a run takes it over from all that saved it before: it claims the next *generation*. One that
was taken over publishes and removes nothing more, whatever it was about to do. Who is newer is thus never a matter of
clocks, nor of who is further.

Taken over is a run of a holder that is dead, is of the same job, or has lost the launcher that watched over it. One
that lives and is of another job, or of none, keeps the run, unless the newcomer insists (`takeover=True`).
"""

from __future__ import annotations

import errno
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TypeVar

from ckptfmt._core.storage.local.leases import holders
from ckptfmt._core.storage.local.leases.lease import (
    Hold,
    Lease,
    lease_path,
    leases_in,
    make_room_for_lease,
    publish_lease,
    read_lease,
)
from ckptfmt._core.storage.local.lock import directory_lock
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.paths import is_gone
from ckptfmt._core.system.forks import let_go_in_children
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.run_directory import RunDirectory
from ckptfmt.errors import HeldError, LeaseError, LockedError, StorageError, SupersededError

__all__ = ["RunClaim", "new_run_id"]

T = TypeVar("T")

_ATTEMPTS = 100
_PAUSES_SECONDS = (0.2, 1.0)  # an error of a file server, for one, need not come again
_NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})


class _Claims:
    """All claims that this process made, whether they still count or not. Those of its parent are not its own."""

    def __init__(self) -> None:
        self._made: set[str] = set()
        let_go_in_children(self)

    def __contains__(self, claim: object) -> bool:
        return claim in self._made

    def make(self) -> str:
        """Return a claim that no other equals."""
        claim = secrets.token_hex(16)
        self._made.add(claim)
        return claim

    def let_go(self) -> None:
        """Forget them in a forked child."""
        self._made.clear()


_own = _Claims()


class RunClaim:
    """The claim of this process to a run. Of several ranks, the one that writes has it.

    Args:
        directory: Directory of the run.

    Attributes:
        generation: The generation that it saves as; None before the run is claimed.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lease: Lease | None = None
        self._hold: Hold | None = None
        self._run_id: str | None = None
        self._place = RunDirectory(directory)
        self._floor = 0
        let_go_in_children(self)

    @property
    def directory(self) -> str:
        """Directory of the run."""
        return self._directory

    @property
    def generation(self) -> int | None:
        """The generation that this process saves as; None before the run is claimed."""
        return None if self._lease is None else self._lease.generation

    def take(self, run_id: str | None, floor: int = 0, *, takeover: bool = False) -> str:
        """Claim a run. Where nothing can be written, only say so: then saves fail until it can.

        Args:
            run_id: The run; None for a new one, or for the one that another process has begun here and not saved yet.
            floor: The latest generation that its checkpoints are known to have; 0 if they have none.
            takeover: Take it over from whoever has it.

        Returns:
            The run.

        Raises:
            HeldError: Another process that lives has it.
            StorageError: It cannot be read who has it, however often it is tried.
        """
        self.release()
        self._lease, self._floor = None, floor
        try:
            _patiently(self._place.note_place)
            self._lease = _patiently(lambda: self._claim(run_id, takeover=takeover))
        except HeldError as error:
            notify(str(error), logging.ERROR)  # uncaught, it ends the process without a word
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
        """Return the generation to save as; claim the run again if that was not possible before, or it was released.

        Raises:
            SupersededError: Another process has the run.
            StorageError: It cannot be claimed now.
        """
        if self._lease is not None and self._hold is not None:
            return self._lease.generation  # without a look at the directory: the training waits
        self._require_directory()
        if self._lease is None:
            assert self._run_id is not None, "the run was not resumed"
            try:
                self._lease = self._claim(self._run_id, takeover=False)
            except HeldError as error:
                raise SupersededError(str(error)) from None
        else:
            with directory_lock(self._directory):
                self._check()
                self._publish(self._lease)
        return self._lease.generation

    def prepare(self) -> None:
        """Make sure that the run may be saved, before the work is begun: the directory is there, and the run is ours.

        Raises:
            SupersededError: Another process has the run.
            StorageError: The directory is gone, or cannot be read or made again.
        """
        self._require_directory()
        with self.held():
            pass

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the directory, and the run. Publications and removals belong inside.

        Raises:
            SupersededError: Another process has the run.
            StorageError: Whether it has is not known.
        """
        with directory_lock(self._directory):
            self._check()
            yield

    def release(self) -> None:
        """Tell others that this process saves the run no more. A later save claims it again. Never raises."""
        hold, self._hold = self._hold, None
        if hold is None or self._lease is None:
            return
        try:
            with suppress(Exception), directory_lock(self._directory):  # if it fails, they find out
                lease = read_lease(self._directory, self._lease.run_id)
                if lease is not None and lease.claim == self._lease.claim:
                    released = Lease(lease.run_id, lease.generation, lease.claim, None)
                    publish_lease(self._directory, released, durably=False).close()
        finally:
            hold.close()

    def let_go(self) -> None:
        """Leave the run to its parent in a forked child: what the child closes must not release it."""
        self._hold = None

    def _claim(self, run_id: str | None, *, takeover: bool) -> Lease:
        for _ in range(_ATTEMPTS):
            seen = self._find(run_id)
            before, notice = self._judge(seen, takeover=takeover, named=run_id is not None)
            with directory_lock(self._directory):
                if self._find(run_id) != seen:
                    continue  # somebody else was quicker: judge anew
                lease = self._next(run_id, before)
                self._publish(lease)
            if notice:
                notify(notice)
            return lease
        raise LockedError(f"{self._directory}: other processes keep claiming the run; end them")

    def _find(self, run_id: str | None) -> Lease | None:
        """Return the lease of a run; if none is named, the last one here that is another process's, dead or alive."""
        if run_id is not None:
            return read_lease(self._directory, run_id)
        try:
            others = [it for it in leases_in(self._directory) if it.holder is not None and it.claim not in _own]
        except OSError as error:
            raise storage_error(self._directory, "cannot be searched for other processes", error) from error
        return max(others, key=lambda it: "" if it.holder is None else it.holder.since, default=None)

    def _judge(self, seen: Lease | None, *, takeover: bool, named: bool) -> tuple[Lease | None, str]:
        """Return the lease to succeed, if any, and the notice to give of that; empty if none.

        Args:
            seen: The lease that is there.
            takeover: It may be taken over in any case.
            named: Its run was asked for. If not, it is of no account unless its holder lives.

        Raises:
            HeldError: It may not be taken over.
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
                f"{run} was last saved by {holder}: watching it for up to {patience:.0f} s",
                logging.INFO,
            )
        try:
            alive = holders.seems_alive(self._directory, seen, watch_seconds=patience)
        except OSError as error:
            raise storage_error(self._directory, "cannot be searched for other processes", error) from error
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
                f"{run} is being saved by {holder}, which is alive; nothing was changed. End it first, pass another "
                "directory or run_id=, or take over the run with resume(takeover=True), which ends that process at its "
                "next save. To only read a checkpoint, use ckptfmt.torch.restore() or load()",
                holder.host,
                holder.pid,
            )
        return seen, f"{run} is taken over from {holder}, which {why}; if it still trains, it ends at its next save"

    def _next(self, run_id: str | None, before: Lease | None) -> Lease:
        run_id = run_id or (new_run_id() if before is None else before.run_id)
        generation = max(0 if before is None else before.generation, self._floor) + 1
        return Lease(run_id, generation, _own.make(), holders.this_process())

    def _publish(self, lease: Lease) -> None:
        """Replace the lease; the directory must be locked."""
        old, self._hold = self._hold, publish_lease(self._directory, lease)
        if old is not None:
            old.close()
        self._keep_alive(self._hold, lease)

    def _keep_alive(self, hold: Hold, lease: Lease) -> None:
        """Let others see that this process lives."""
        directory = self._directory
        hold.keep_alive(lambda: _report_loss(directory, lease))

    def _check(self) -> None:
        """Look whether the run is still this process's; the directory must be locked."""
        mine = self._lease
        if mine is None:
            raise StorageError(f"{self._directory}: the run is not claimed; resume it first")
        found = self._read_own(mine)
        if found is None:
            self._place.report_if_replaced()
            self._publish(mine)
        elif found.claim != mine.claim:
            if not self._is_of_the_past(found, mine):
                raise SupersededError(_loss(self._directory, mine, found))
            self._publish(mine)
        elif self._hold is not None:
            self._keep_alive(self._hold, mine)  # there may have been no thread for that until now

    def _read_own(self, mine: Lease) -> Lease | None:
        """Return the lease that is there; none in the place of a damaged one, which the process that holds it mends.

        Raises:
            StorageError: It cannot be read, or understood.
        """
        try:
            return read_lease(self._directory, mine.run_id)
        except LeaseError:
            if self._hold is None or not make_room_for_lease(self._directory, mine.run_id):
                raise
            path = lease_path(self._directory, mine.run_id)
            notify(f"{path}: damaged; this process, which saves the run, writes it again")
            return None

    def _is_of_the_past(self, found: Lease, mine: Lease) -> bool:
        """Say whether a lease is an earlier one of a process that is dead, as a backup may bring it back."""
        if found.generation >= mine.generation:
            return False
        try:
            return not holders.seems_alive(self._directory, found, watch_seconds=0)
        except OSError:
            return False

    def _require_directory(self) -> None:
        """Make sure that the directory of the run is there, before even a lock is made in it."""
        self._place.make_again_if_gone()
        if self._lease is not None and is_gone(lease_path(self._directory, self._lease.run_id)):
            self._place.require_device()


def new_run_id() -> str:
    """Return an id that no other run has."""
    # The operating system's randomness: the run's own generators must not notice.
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def _patiently(act: Callable[[], T]) -> T:
    """Return what a function returns; try again if it fails for what may be over in a moment."""
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
        f"{directory}: run {mine.run_id} was taken over by {by}, as generation {found.generation} after "
        f"{mine.generation}, which this process is"
    )


def _report_loss(directory: str, mine: Lease) -> None:
    with suppress(StorageError):
        found = read_lease(directory, mine.run_id)
        if found is not None and found.claim != mine.claim and found.claim not in _own:
            notify(f"{_loss(directory, mine, found)}; it writes nothing more and ends at its next save", logging.ERROR)
