"""The place of a run: a directory that must stay the same one, or a store whose guarantees must be known."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from ckptfmt._core.storage.local.paths import device_and_inode, is_directory, is_gone, nearest_directory
from ckptfmt._core.storage.probing import probe
from ckptfmt._core.storage.resolve import is_url, make_directory, store_for
from ckptfmt._core.training.notices import notify
from ckptfmt.errors import StorageError

__all__ = ["RunDirectory", "RunPlace", "RunStore", "place_of_run"]


class RunPlace(Protocol):
    """The place of a run, from its resume on."""

    def note(self) -> None:
        """Record the place, when the run is resumed.

        Raises:
            StorageError: It cannot be examined.
        """

    def prepare(self, lease: str | None) -> None:
        """Check that the place can be written to, before a lock is created in it.

        Args:
            lease: Path of the run's lease; None if it has none yet.

        Raises:
            StorageError: It cannot.
        """

    def report_if_replaced(self) -> None:
        """Report it if another place has the name now, and use that one from now on.

        Raises:
            StorageError: It must not be used, or cannot be examined.
        """


def place_of_run(location: str) -> RunPlace:
    """Return the place at a path or URL.

    Raises:
        StorageError: No store supports URLs of this kind, or the name is impossible.
    """
    return RunStore(location) if is_url(location) else RunDirectory(location)


class RunStore:
    """A store that is not a local directory. It cannot be unmounted or moved; what it guarantees is found out.

    Args:
        url: URL of the store.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._probed = False

    def note(self) -> None:
        """Probe the store, once, and report what it does not guarantee."""
        if self._probed:
            return
        report = probe(store_for(self._url))
        self._probed = True
        if report.not_guaranteed:
            notify(
                f"{self._url}: the store ignores conditions of requests; not guaranteed; save each run from one "
                "program at a time:",
                details=report.not_guaranteed,
            )

    def prepare(self, lease: str | None) -> None:
        """Do nothing: a store exists without its objects."""

    def report_if_replaced(self) -> None:
        """Do nothing: a URL always leads to the same store."""


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

    def note(self) -> None:
        """Record its location, when the run is resumed.

        Raises:
            StorageError: The directory cannot be examined.
        """
        self._place = _place_of(self._path)

    def prepare(self, lease: str | None) -> None:
        """Recreate the directory if it was removed during the run; without the lease, check its device.

        Raises:
            StorageError: It cannot be created, or its path is now on another device.
        """
        self._make_again_if_gone()
        if lease is not None and is_gone(lease):
            self._require_device(self._path)

    def _make_again_if_gone(self) -> None:
        if is_directory(self._path):
            return
        self._require_device(nearest_directory(self._path))
        make_directory(str(self._path))
        self._place = _place_of(self._path)
        notify(f"{self._path}: removed or renamed during the run; recreated without its earlier checkpoints")

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
