"""Locks on small objects, for stores that know compare-and-swap and nothing else.

A lock is an object that holds the token of its holder, or nothing. To take it is to swap nothing for one's token. A
holder that dies leaves its token behind: whoever has seen the same token for long enough, by its own clock, swaps it
for its own. So a holder that is merely slow may lose a lock. No harm comes of it, because what is done under a lock is
conditional all the same: nothing is replaced that was not expected, and no other version is removed.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ckptfmt._core.storage.base import Small, Tag
from ckptfmt.errors import LockedError

__all__ = ["SmallObjects", "object_lock"]

_PERIOD_SECONDS = 0.01
_FREE = b""


class SmallObjects(Protocol):
    """What a lock needs of a store."""

    def path(self, name: str) -> str:
        """See `base.Store`."""

    def read(self, name: str) -> Small | None:
        """See `base.Store`."""

    def swap(self, name: str, expected: Tag | None, content: bytes, *, durably: bool = True) -> Tag | None:
        """See `base.Store`."""


class _Held(threading.local):
    """The locks that this thread holds, by what they are called."""

    def __init__(self) -> None:
        self.paths: set[str] = set()


_held = _Held()
_first_seen: dict[str, tuple[bytes, float]] = {}
"""By lock: the token of another holder, and when this process saw it first."""


@contextmanager
def object_lock(
    store: SmallObjects, name: str, busy: str, *, wait_seconds: float, stale_seconds: float, again: bool = False
) -> Iterator[None]:
    """Hold a lock.

    Args:
        store: Where its object is.
        name: Name of the object.
        busy: What to say when another holder has it.
        wait_seconds: How long to wait for another holder.
        stale_seconds: How long a holder may have it before it counts as dead.
        again: A thread that has it may take it again.

    Raises:
        LockedError: Another process, or another thread, holds it.
        StorageError: The object cannot be read or written.
    """
    path = store.path(name)
    if again and path in _held.paths:
        yield
        return
    token = secrets.token_hex(16).encode()
    tag = _take(store, name, token, busy, time.monotonic() + wait_seconds, stale_seconds)
    _held.paths.add(path)
    try:
        yield
    finally:
        _held.paths.discard(path)
        store.swap(name, tag, _FREE, durably=False)  # if it was lost, it stays with the one who has it


def _take(store: SmallObjects, name: str, token: bytes, busy: str, deadline: float, stale_seconds: float) -> Tag:
    while True:
        found = store.read(name)
        if found is None or found.content == _FREE or _is_stale(store.path(name), found.content, stale_seconds):
            tag = store.swap(name, None if found is None else found.tag, token, durably=False)
            if tag is not None:
                return tag
        if time.monotonic() >= deadline:
            raise LockedError(busy)
        time.sleep(_PERIOD_SECONDS)


def _is_stale(path: str, token: bytes, stale_seconds: float) -> bool:
    seen, since = _first_seen.get(path, (_FREE, 0.0))
    if seen != token:
        _first_seen[path] = (token, time.monotonic())
        return False
    return time.monotonic() - since >= stale_seconds
