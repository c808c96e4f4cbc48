"""Leases that are small objects, for stores without locks (spec, annex B).

A lease is replaced by compare-and-swap: of several programs that claim a run, one succeeds. Its holder shows that it is
alive by changing a number in it, by compare-and-swap too, and so notices at once when the run is taken over.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

from ckptfmt._core.storage.base import Small, Store, Tag
from ckptfmt._core.storage.leases import holders
from ckptfmt._core.storage.leases.hold import Hold
from ckptfmt._core.storage.leases.lease import (
    DamagedLeaseError,
    Lease,
    decode_lease,
    encode_lease,
    is_lease_name,
    lease_name,
)
from ckptfmt.errors import LeaseError, StorageError

__all__ = ["ObjectHold", "ObjectLeases"]

_ATTEMPTS = 100


class ObjectLeases:
    """The leases in a store (see `leases.base.Leases`).

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def path(self, run_id: str) -> str:
        """Return the URL of the lease of a run."""
        return self._store.path(lease_name(run_id))

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock of the store."""
        return self._store.lock()

    def all(self) -> Sequence[Lease]:
        """Return the leases that can be understood."""
        found = []
        for entry in self._store.list():
            if not is_lease_name(entry.name):
                continue
            with contextlib.suppress(DamagedLeaseError):
                small = self._store.read(entry.name)
                lease = None if small is None else decode_lease(small.content)
                if lease is not None and lease_name(lease.run_id) == entry.name:
                    found.append(lease)
        return found

    def read(self, run_id: str) -> Lease | None:
        """Return the lease of a run; None if there is none."""
        path = self.path(run_id)
        small = self._store.read(lease_name(run_id))
        try:
            lease = None if small is None else decode_lease(small.content)
        except DamagedLeaseError as error:
            raise LeaseError(f"{path}: not a lease ({error}); remove it if no process saves the run") from error
        if lease is not None and lease.run_id != run_id:
            raise LeaseError(f"{path}: the lease of another run, {lease.run_id!r}; remove it if no process saves here")
        return lease

    def make_room(self, run_id: str) -> bool:
        """Return whether the object with the name of a lease holds no claim."""
        try:
            small = self._store.read(lease_name(run_id))
            return small is not None and _holds_no_claim(small)
        except StorageError:
            return False

    def publish(
        self,
        lease: Lease,
        before: Lease | None,
        *,
        durably: bool = True,  # noqa: ARG002 - a visible object is as durable as the store
    ) -> Hold | None:
        """Replace the lease of a run by compare-and-swap, and hold the new one; None if it is another one by now."""
        name = lease_name(lease.run_id)
        content = encode_lease(lease, beat=0)
        for _ in range(_ATTEMPTS):
            small = self._store.read(name)
            if small is not None and small.content == content:  # of an earlier attempt, the answer to which was lost
                return ObjectHold(self._store, lease, small.tag)
            if _lease_in(small) != before:
                return None
            tag = self._store.swap(name, None if small is None else small.tag, content)
            if tag is not None:
                return ObjectHold(self._store, lease, tag)
            # The holder may have shown meanwhile that it is alive, which changes the tag and not the lease.
        return None

    def seems_alive(self, lease: Lease, *, watch_seconds: float) -> bool:
        """Return whether the holder of a lease is alive, as far as can be told."""
        if lease.holder is None:
            return False
        running = holders.is_running(lease.holder)
        if running is not None:
            return running

        def look() -> bytes | None:
            small = self._store.read(lease_name(lease.run_id))
            return None if small is None else small.content

        return holders.changes(look, look(), watch_seconds=watch_seconds)


class ObjectHold(Hold):
    """A lease that this process holds.

    Args:
        store: The store.
        lease: What the lease says.
        tag: Tag of its content.
    """

    def __init__(self, store: Store, lease: Lease, tag: Tag) -> None:
        super().__init__()
        self._store = store
        self._lease = lease
        self._tag = tag
        self._beats = itertools.count(1)
        self._lock = threading.Lock()

    def touch(self) -> bool:
        """Change the number in the lease; return whether it is still the lease of the run."""
        name = lease_name(self._lease.run_id)
        with self._lock:
            try:
                tag = self._store.swap(name, self._tag, encode_lease(self._lease, beat=next(self._beats)))
                if tag is None:
                    small = self._store.read(name)
                    if small is None or _lease_in(small) != self._lease:
                        return False
                    tag = small.tag  # an earlier change succeeded, and the answer was lost
            except StorageError:  # the store may answer the next time
                return True
            self._tag = tag
        return True


def _lease_in(small: Small | None) -> Lease | None:
    """Return what a lease says; None if it holds no claim.

    Raises:
        LeaseError: It may hold a claim in a form that this program does not know.
    """
    if small is None:
        return None
    try:
        return decode_lease(small.content)
    except DamagedLeaseError as error:
        if error.of_a_later_program:
            raise LeaseError(f"not a lease ({error}); use a later version of ckptfmt") from error
        return None


def _holds_no_claim(small: Small) -> bool:
    try:
        return _lease_in(small) is None
    except LeaseError:
        return False
