"""Pins: small objects `NAME.pin` that keep the checkpoint NAME from removal (spec 15.10)."""

from __future__ import annotations

import re
from collections.abc import Container

from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.storage.base import Store
from ckptfmt.errors import StorageError

__all__ = ["PIN", "is_pinned", "pins"]

PIN = ".pin"
"""What the name of a pin ends with, behind the name of the checkpoint."""

_IDENTITY = re.compile(rb"[0-9a-f]{64}")


def pins(content: bytes, identity: str | None) -> bool:
    """Return whether a pin of this content pins the checkpoint of this identity.

    A pin that names an identity is for that checkpoint only, not for a later one of the same name. Any other content,
    such as none, pins whatever has the name.

    Args:
        content: Content of the pin.
        identity: Identity of the checkpoint, 64 hex digits; None if it is unknown.
    """
    text = content.strip()
    return identity is None or _IDENTITY.fullmatch(text) is None or text == identity.encode()


def is_pinned(store: Store, file: CheckpointReference, names: Container[str] | None = None) -> bool:
    """Return whether a pin keeps a checkpoint. One that cannot be read does.

    Args:
        store: The store of the checkpoint.
        file: The checkpoint.
        names: Names of all objects in the store; None: ask the store for each.

    Raises:
        StorageError: Whether a pin exists is unknown.
    """
    for number, it in enumerate(file.files):
        name = it.name + PIN
        there = store.look(name) is not None if names is None else name in names
        if there and _pins(store, name, None if number else file.identity):
            return True
    return False


def _pins(store: Store, name: str, identity: str | None) -> bool:
    try:
        found = store.read(name)
    except StorageError:
        return True
    return found is not None and pins(found.content, identity)
