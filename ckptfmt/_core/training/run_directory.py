"""Checks that the directory of a run still exists and is still the same one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ckptfmt._core.storage.local.paths import device_and_inode, is_directory, nearest_directory
from ckptfmt._core.storage.local.publication.atomic_directory import make_directory
from ckptfmt._core.training.notices import notify
from ckptfmt.errors import StorageError

__all__ = ["RunDirectory"]


class _Place(NamedTuple):
    """Location of a directory. Some file systems renumber directories at times; the device stays the same."""

    device: int
    inode: int


class RunDirectory:
    """The directory of a run. Nothing is written to a device other than the one at the resume.

    Args:
        path: Absolute path.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._place: _Place | None = None

    def note_place(self) -> None:
        """Record its location, when the run is resumed.

        Raises:
            StorageError: The directory cannot be examined.
        """
        self._place = _place_of(self._path)

    def make_again_if_gone(self) -> None:
        """Recreate the directory if it was removed during the run.

        Raises:
            StorageError: It cannot be created, or its path is now on another device.
        """
        if is_directory(self._path):
            return
        self._require_device(nearest_directory(self._path))
        make_directory(self._path)
        self._place = _place_of(self._path)
        notify(f"{self._path}: removed or renamed during the run; recreated without its earlier checkpoints")

    def require_device(self) -> None:
        """Check that the directory is on the same device as before.

        Raises:
            StorageError: It is not, or it cannot be examined.
        """
        self._require_device(self._path)

    def report_if_replaced(self) -> None:
        """Report it if another directory has taken its place, and use that one from now on.

        Raises:
            StorageError: The new directory is on another device, or cannot be examined.
        """
        before, self._place = self._place, self._require_device(self._path)
        if before != self._place:
            notify(
                f"{self._path}: replaced by another directory during the run; "
                "new checkpoints are saved there, without the earlier ones"
            )

    def _require_device(self, path: Path) -> _Place:
        place = _place_of(path)
        if self._place is None or place.device != self._place.device:
            raise StorageError(
                f"{self._path}: gone, and {path} is on another device than before; nothing is written there; "
                "check that its volume is mounted"
            )
        return place


def _place_of(path: Path) -> _Place:
    return _Place(*device_and_inode(path))
