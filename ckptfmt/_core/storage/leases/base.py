"""The leases of a place, whatever keeps them: files or objects."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ckptfmt._core.storage.leases.hold import Hold
from ckptfmt._core.storage.leases.lease import Lease

__all__ = ["Leases"]


class Leases(Protocol):
    """The leases of the runs in one place."""

    def path(self, run_id: str) -> str:
        """Return the path or URL of the lease of a run."""

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock under which leases are replaced, and checkpoints published and removed.

        Raises:
            LockedError: Another process holds the lock.
        """

    def all(self) -> Sequence[Lease]:
        """Return the leases that can be understood, in any order.

        Raises:
            StorageError: The place cannot be listed, or a lease not be read.
        """

    def read(self, run_id: str) -> Lease | None:
        """Return the lease of a run; None if there is none.

        Raises:
            LeaseError: It cannot be understood.
            StorageError: It cannot be read.
        """

    def make_room(self, run_id: str) -> bool:
        """Return whether what has the name of a lease holds no claim, so that the run's own process may replace it."""

    def publish(self, lease: Lease, before: Lease | None, *, durably: bool = True) -> Hold | None:
        """Replace the lease of a run, completely or not at all, and hold the new one. The lock must be held.

        Args:
            lease: The new lease.
            before: The lease to replace; None: there is none, or none that holds a claim.
            durably: Wait until the new lease is durable.

        Returns:
            The new lease, held; None if another program has replaced the lease meanwhile, and nothing was changed.

        Raises:
            StorageError: It was not replaced, or may not be durable.
        """

    def seems_alive(self, lease: Lease, *, watch_seconds: float) -> bool:
        """Return whether the holder of a lease is alive, as far as can be told.

        Args:
            lease: The lease, as it was read.
            watch_seconds: How long to watch the lease of another machine.

        Raises:
            StorageError: The lease cannot be examined.
        """
