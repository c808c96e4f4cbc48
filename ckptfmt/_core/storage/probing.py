"""Finding out whether a store keeps what it claims: there are services that ignore the conditions of requests."""

from __future__ import annotations

import secrets
from contextlib import closing, suppress
from dataclasses import dataclass

from ckptfmt._core.storage.base import Store
from ckptfmt.errors import ChangedError, StorageError

__all__ = ["ProbeReport", "probe"]


@dataclass(frozen=True)
class ProbeReport:
    """What a store was seen to do.

    Attributes:
        location: The store.
        create_if_absent: It refuses to create a small object that is there.
        publish_if_absent: It replaces nothing when something is published beside it.
        compare_and_swap: It refuses to replace a content that is not the expected one any more.
        conditional_removal: It refuses to remove another version than was named.
        pinned_reads: It tells when what is being read was replaced.
    """

    location: str
    create_if_absent: bool
    publish_if_absent: bool
    compare_and_swap: bool
    conditional_removal: bool
    pinned_reads: bool

    @property
    def not_guaranteed(self) -> tuple[str, ...]:
        """What cannot be relied on, in words; empty for a sound store."""
        told = (
            (self.publish_if_absent, "two programs that save at once may replace each other's checkpoints"),
            (self.create_if_absent, "two programs may both believe that they have begun a run, or hold a lock"),
            (self.compare_and_swap, "a program that was taken over may not notice, and go on saving"),
            (self.conditional_removal, "a checkpoint that was replaced a moment ago may be removed"),
            (self.pinned_reads, "a checkpoint that is replaced while it is read is noticed by its digests only"),
        )
        return tuple(text for holds, text in told if not holds)


def probe(store: Store) -> ProbeReport:
    """Try a store out with small objects of its own, which are removed again.

    Raises:
        StorageError: It cannot be written to, or read.
    """
    name = f".ckptfmt-probe-{secrets.token_hex(8)}"
    try:
        return ProbeReport(
            store.location,
            create_if_absent=_creates_once(store, name),
            publish_if_absent=_publishes_beside(store, f"{name}-published"),
            compare_and_swap=_swaps_once(store, name),
            conditional_removal=_removes_by_version(store, name),
            pinned_reads=_reads_one_version(store, name),
        )
    finally:
        for entry in store.list():
            if entry.name.startswith(name):
                store.remove(entry.name)


def _creates_once(store: Store, name: str) -> bool:
    return store.swap(name, None, b"1") is not None and store.swap(name, None, b"2") is None


def _publishes_beside(store: Store, name: str) -> bool:
    """Publish under a name that another program takes in the last moment."""
    with suppress(StorageError), store.create(name) as file:
        file.write(b"late")
        store.swap(name, None, b"first")
        file.commit()
    found = store.read(name)
    return found is not None and found.content == b"first"


def _swaps_once(store: Store, name: str) -> bool:
    found = store.read(name)
    if found is None:
        return False
    return store.swap(name, found.tag, b"3") is not None and store.swap(name, found.tag, b"4") is None


def _removes_by_version(store: Store, name: str) -> bool:
    before, found = store.look(name), store.read(name)
    if before is None or before.version is None or found is None:
        return False
    store.swap(name, found.tag, b"5")
    try:
        store.remove(name, before.version)
    except ChangedError:
        return store.look(name) is not None
    return False


def _reads_one_version(store: Store, name: str) -> bool:
    store.remove(name)
    tag = store.swap(name, None, b"6")
    with closing(store.open(name)) as source:
        store.swap(name, tag, b"7")
        try:
            return source.read(0, 1) == b"6"
        except ChangedError:
            return True
