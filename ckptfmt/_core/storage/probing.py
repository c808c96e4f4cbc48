"""A check of the guarantees that a store claims: some services ignore the conditions of requests."""

from __future__ import annotations

import secrets
from contextlib import closing, suppress
from dataclasses import dataclass

from ckptfmt._core.storage.base import Store
from ckptfmt.errors import ChangedError, StorageError

__all__ = ["ProbeReport", "probe"]

_LARGE_BYTES = 256 << 10


@dataclass(frozen=True)
class ProbeReport:
    """Observed guarantees of a store.

    Attributes:
        location: Path or URL of the store.
        create_if_absent: The store refuses to create a small object that exists.
        publish_if_absent: A publication without `replace` replaces nothing.
        compare_and_swap: The store refuses to replace content that has changed.
        conditional_removal: The store refuses to remove a version other than the named one.
        pinned_reads: The store never returns bytes of a replacement to a reader of the old version.
    """

    location: str
    create_if_absent: bool
    publish_if_absent: bool
    compare_and_swap: bool
    conditional_removal: bool
    pinned_reads: bool

    @property
    def not_guaranteed(self) -> tuple[str, ...]:
        """The consequences of each missing guarantee; empty for a sound store."""
        consequences = (
            (self.publish_if_absent, "two programs that save at the same time may replace each other's checkpoints"),
            (self.create_if_absent, "two programs may both begin the same run, or hold the same lock"),
            (self.compare_and_swap, "a program may continue to save a run that another program has taken over"),
            (self.conditional_removal, "a prune may remove a checkpoint that was replaced after the last check"),
            (self.pinned_reads, "only digests detect that a checkpoint was replaced during a read"),
        )
        return tuple(text for holds, text in consequences if not holds)


def probe(store: Store) -> ProbeReport:
    """Check a store with temporary objects, 256 KiB at most.

    Raises:
        StorageError: The store cannot be read or written.
    """
    name = f".ckptfmt-probe-{secrets.token_hex(8)}"
    try:
        return ProbeReport(
            store.location,
            # Where a store claims nothing, a check that succeeds has been lucky.
            create_if_absent=_creates_once(store, name) and store.properties.create_if_absent,
            publish_if_absent=_publishes_beside(store, f"{name}-published") and store.properties.create_if_absent,
            compare_and_swap=_swaps_once(store, name) and store.properties.compare_and_swap,
            conditional_removal=_removes_by_version(store, name),
            pinned_reads=_reads_one_version(store, name),
        )
    finally:
        for entry in store.list():
            if entry.name.startswith(name):
                with suppress(StorageError):  # who may not remove objects may still save
                    store.remove(entry.name)


def _creates_once(store: Store, name: str) -> bool:
    return store.swap(name, None, b"1") is not None and store.swap(name, None, b"2") is None


def _publishes_beside(store: Store, name: str) -> bool:
    """Publish under a name that another program takes in the last moment; return whether both objects survive."""
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
    except StorageError:  # it has changed, or nothing may be removed
        return store.look(name) is not None
    return False


def _reads_one_version(store: Store, name: str) -> bool:
    _replace(store, name, b"6")
    with closing(store.open(name)) as source:
        _replace(store, name, b"7")
        try:
            return source.read(0, 1) == b"6"
        except ChangedError:
            return True


def _replace(store: Store, name: str, byte: bytes) -> None:
    """Publish an object that is too large to be read whole when it is opened."""
    with store.create(name, replace=True) as file:
        file.write(byte * _LARGE_BYTES)
        file.commit()
