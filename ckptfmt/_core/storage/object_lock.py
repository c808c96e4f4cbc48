"""Locks on small objects, for stores whose only means of exclusion is compare-and-swap.

A lock object contains the token of its holder, or nothing. A program takes the lock by swapping the empty content for
its token. The token of a dead holder stays. A program swaps it for its own if the holder was a process of this machine
that is dead, or if it has seen the same token for long enough, by its own clock. A slow holder may therefore lose the
lock. This is safe because every change under a lock is
conditional as well: it replaces only the expected content and removes only the named version.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ckptfmt._core.storage.base import Small, Tag
from ckptfmt._core.storage.leases import holders
from ckptfmt._core.storage.leases.lease import Holder
from ckptfmt.errors import LockedError

__all__ = ["SmallObjects", "object_lock"]

_PERIOD_SECONDS = 0.01
_FREE = b""


class SmallObjects(Protocol):
    """The methods of a store that a lock needs."""

    def path(self, name: str) -> str:
        """See `base.Store`."""

    def read(self, name: str) -> Small | None:
        """See `base.Store`."""

    def swap(self, name: str, expected: Tag | None, content: bytes, *, durably: bool = True) -> Tag | None:
        """See `base.Store`."""


class _Held(threading.local):
    """Paths of the locks that this thread holds."""

    def __init__(self) -> None:
        self.paths: set[str] = set()


_held = _Held()
_first_seen: dict[str, tuple[bytes, float]] = {}
"""Token of another holder, and when this process first saw it, by path of the lock."""


@contextmanager
def object_lock(
    store: SmallObjects, name: str, busy: str, *, wait_seconds: float, stale_seconds: float, again: bool = False
) -> Iterator[None]:
    """Hold a lock.

    Args:
        store: Store of the lock object.
        name: Name of the lock object.
        busy: Message of the `LockedError`.
        wait_seconds: Time to wait for another holder.
        stale_seconds: Time after which a holder counts as dead.
        again: Whether the lock is reentrant.

    Raises:
        LockedError: Another process or thread holds the lock.
        StorageError: The object cannot be read or written.
    """
    path = store.path(name)
    if again and path in _held.paths:
        yield
        return
    token = _new_token()
    tag = _take(store, name, token, busy, time.monotonic() + wait_seconds, stale_seconds)
    _held.paths.add(path)
    try:
        yield
    finally:
        _held.paths.discard(path)
        store.swap(name, tag, _FREE, durably=False)  # does nothing if another program took the lock over


def _take(store: SmallObjects, name: str, token: bytes, busy: str, deadline: float, stale_seconds: float) -> Tag:
    while True:
        found = store.read(name)
        if found is not None and found.content == token:  # taken by an attempt the answer to which was lost
            return found.tag
        if found is None or found.content == _FREE or _is_stale(store.path(name), found.content, stale_seconds):
            tag = store.swap(name, None if found is None else found.tag, token, durably=False)
            if tag is not None:
                return tag
        if time.monotonic() >= deadline:
            raise LockedError(busy)
        time.sleep(_PERIOD_SECONDS)


def _new_token() -> bytes:
    me = holders.this_process()
    return json.dumps([secrets.token_hex(16), me.host, me.pid, me.machine, me.process]).encode()


def _is_dead(token: bytes) -> bool:
    """Return whether the holder is known to be dead."""
    try:
        _, host, pid, machine, process = json.loads(token)
        return holders.is_running(Holder(host, int(pid), str(machine), str(process), "")) is False
    except (TypeError, ValueError):
        return False


def _is_stale(path: str, token: bytes, stale_seconds: float) -> bool:
    if _is_dead(token):
        return True
    seen, since = _first_seen.get(path, (_FREE, 0.0))
    if seen != token:
        _first_seen[path] = (token, time.monotonic())
        return False
    return time.monotonic() - since >= stale_seconds
