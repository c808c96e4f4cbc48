"""The directory of a run while it is trained: still there, and the one in which it began?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ckptfmt._core.storage.local.paths import device_and_inode, is_directory, nearest_directory
from ckptfmt._core.storage.local.publication.atomic_directory import make_directory
from ckptfmt._core.training.notices import notify
from ckptfmt.errors import StorageError

__all__ = ["RunDirectory"]


class _Place(NamedTuple):
    """Where a directory lies. Some file systems number a directory anew at times; the device stays."""

    device: int
    inode: int


class RunDirectory:
    """The directory of a run. Nothing is written on another device than that on which the run was resumed.

    Args:
        path: Its path, absolute.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._place: _Place | None = None

    def note_place(self) -> None:
        """Note where it lies, when the run is resumed.

        Raises:
            StorageError: It cannot be looked at.
        """
        self._place = _place_of(self._path)

    def make_again_if_gone(self) -> None:
        """Make it again if it was removed under the run.

        Raises:
            StorageError: It cannot be made, or where it was is another device now.
        """
        if is_directory(self._path):
            return
        self._require_device(nearest_directory(self._path))
        make_directory(self._path)
        self._place = _place_of(self._path)
        notify(f"{self._path}: was removed, or renamed, and is made again, without the checkpoints that were in it")

    def require_device(self) -> None:
        """Make sure that it is on the same device as before.

        Raises:
            StorageError: It is not, or cannot be looked at.
        """
        self._require_device(self._path)

    def report_if_replaced(self) -> None:
        """Report it if another directory has taken its place; it is the run's from now on.

        Raises:
            StorageError: That is on another device, or cannot be looked at.
        """
        before, self._place = self._place, self._require_device(self._path)
        if before != self._place:
            notify(
                f"{self._path}: another directory has taken the place of that in which the run was saved so far; "
                "new checkpoints go there, and the earlier ones are not in it"
            )

    def _require_device(self, path: Path) -> _Place:
        place = _place_of(path)
        if self._place is None or place.device != self._place.device:
            raise StorageError(
                f"{self._path}: is gone, and {path} is on another device than it was; nothing is written there. "
                "Is its volume still mounted?"
            )
        return place


def _place_of(path: Path) -> _Place:
    return _Place(*device_and_inode(path))
