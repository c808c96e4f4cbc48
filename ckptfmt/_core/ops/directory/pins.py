"""Setting and removing pins: a checkpoint beside which an object `NAME.pin` stands is never removed by retention."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from ckptfmt._core.runs.pins import PIN, pins
from ckptfmt._core.runs.scan import EXTENSION, look_at_native
from ckptfmt._core.storage.base import Store
from ckptfmt._core.storage.local.paths import path_text
from ckptfmt._core.storage.resolve import is_directory, locate
from ckptfmt.errors import StorageError

__all__ = ["PinChange", "pin", "unpin"]


@dataclass(frozen=True)
class PinChange:
    """Report of pinning or unpinning a file.

    Attributes:
        path: The file.
        pinned: Whether it is pinned now.
        changed: Whether it was not before.
    """

    path: str
    pinned: bool
    changed: bool

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `path`, `pinned`, `changed`."""
        return {"path": self.path, "pinned": self.pinned, "changed": self.changed}


def pin(path: str | os.PathLike[str]) -> PinChange:
    """Give a checkpoint a pin, durably. When this returns, it is there and no prune will remove it.

    Raises:
        StorageError: There is no such file, or it was removed meanwhile; or its directory cannot be written.
    """
    text = path_text(path)
    store, name = locate(text)
    _require_object(store, name)
    identity = look_at_native(text).identity if name.endswith(EXTENSION) else None
    if not _set(store, name + PIN, identity):
        return PinChange(text, pinned=True, changed=False)
    try:
        # Whoever looked for the pin just before is done with this file; whoever comes later sees the pin.
        with store.lock():
            _require_object(store, name)
    except BaseException:
        store.remove(name + PIN)
        raise
    return PinChange(text, pinned=True, changed=True)


def unpin(path: str | os.PathLike[str]) -> PinChange:
    """Take the pin from a checkpoint, which may be gone.

    Raises:
        StorageError: There is neither the file nor a pin; or its directory cannot be written.
    """
    text = path_text(path)
    store, name = locate(text)
    if store.look(name + PIN) is None:
        _require_object(store, name)
        return PinChange(text, pinned=False, changed=False)
    store.remove(name + PIN)
    return PinChange(text, pinned=False, changed=True)


def _set(store: Store, name: str, identity: str | None) -> bool:
    """Set a pin; return whether it was not there. One that is meant for another checkpoint is replaced."""
    content = b"" if identity is None else identity.encode()
    while True:  # another program may set it at the same time
        found = store.read(name)
        if found is not None and pins(found.content, identity):
            return False
        if store.swap(name, None if found is None else found.tag, content) is not None:
            return True


def _require_object(store: Store, name: str) -> None:
    if store.look(name) is not None:
        return
    path = store.path(name)
    if is_directory(path):
        raise StorageError(f"{path}: is a directory; name a checkpoint in it")
    error = StorageError(f"{path}: cannot be pinned: no such file; check the path")
    error.errno = errno.ENOENT
    raise error
