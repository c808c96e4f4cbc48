"""Pins: a checkpoint beside which a file `NAME.pin` stands is never removed by retention."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from ckptfmt._core.runs.scan import PIN
from ckptfmt._core.storage.local.durability import flush_directory
from ckptfmt._core.storage.local.lock import directory_lock
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.paths import local_path, require_regular_file
from ckptfmt.errors import StorageError

__all__ = ["PinChange", "pin", "unpin"]


@dataclass(frozen=True)
class PinChange:
    """What was done about the pin of a file.

    Attributes:
        path: The file.
        pinned: Whether it has a pin now.
        changed: Whether that is new.
    """

    path: str
    pinned: bool
    changed: bool

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `path`, `pinned`, `changed`."""
        return {"path": self.path, "pinned": self.pinned, "changed": self.changed}


def pin(path: str | os.PathLike[str]) -> PinChange:
    """Give a file a pin, durably. When this returns, the file is there and no prune will remove it.

    Raises:
        StorageError: There is no such file, or it was removed meanwhile; or its directory cannot be written.
    """
    text = local_path(path)
    _require_file(text)
    mark = Path(text + PIN)
    try:
        descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return PinChange(text, pinned=True, changed=False)
    except OSError as error:
        raise storage_error(text, "cannot be pinned", error) from error
    try:
        flush_directory(mark.parent, descriptor)
        # Whoever looked for the pin just before is done with this file; whoever comes later sees the pin.
        with directory_lock(mark.parent):
            _require_file(text)
    except BaseException as error:
        mark.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(text, "cannot be pinned", error) from error
        raise
    finally:
        os.close(descriptor)
    return PinChange(text, pinned=True, changed=True)


def unpin(path: str | os.PathLike[str]) -> PinChange:
    """Take the pin from a file, which may be gone.

    Raises:
        StorageError: There is neither the file nor a pin; or its directory cannot be written.
    """
    text = local_path(path)
    mark = Path(text + PIN)
    try:
        mark.unlink()
    except FileNotFoundError:
        _require_file(text)
        return PinChange(text, pinned=False, changed=False)
    except OSError as error:
        raise storage_error(text, "cannot be unpinned", error) from error
    with contextlib.suppress(OSError):  # a pin that a power cut brings back does no harm
        flush_directory(mark.parent)
    return PinChange(text, pinned=False, changed=True)


def _require_file(path: str) -> None:
    try:
        require_regular_file(path, Path(path).stat().st_mode)
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(path, "cannot be pinned", error) from error
