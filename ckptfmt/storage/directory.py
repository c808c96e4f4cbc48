"""Publication of a directory as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptfmt.errors import StorageError
from ckptfmt.storage.durability import flush_directory
from ckptfmt.storage.failures import storage_error
from ckptfmt.storage.paths import local_path
from ckptfmt.storage.temporary import register, unregister

__all__ = ["AtomicDirectory"]

_STEM_CHARACTERS = 100


class AtomicDirectory:
    """A directory that appears at its path with all of its files, on stable storage, or not at all.

    ```python
    with AtomicDirectory("out") as directory:
        ...  # put files into directory.work
        directory.commit()
    ```

    Leaving the `with` without `commit`, by an error or an interrupt, removes what was written. Who writes the files
    flushes them.

    Args:
        path: Where the directory is to appear. It may be there and empty.

    Attributes:
        work: The directory to write to, beside the target. It is there within the `with`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._target = Path(local_path(path))
        self.work = self._target.resolve().parent / f".{self._target.name[:_STEM_CHARACTERS]}.{os.urandom(8).hex()}.tmp"

    def __enter__(self) -> Self:
        """Make the directory to work in.

        Raises:
            StorageError: Something else is at the path, or the directory cannot be made.
        """
        try:
            if os.path.lexists(self._target) and not (self._target.is_dir() and not any(self._target.iterdir())):
                raise StorageError(f"{self._target}: is there already and not an empty directory; name another one")
            register(self.work)
            self.work.mkdir()
        except BaseException as error:  # an interrupt, too, may come when the directory is made already
            self._remove()
            self._explain(error)
            raise
        return self

    def commit(self) -> None:
        """Publish the directory, and wait until that is on stable storage.

        Raises:
            StorageError: It was not published, or may not outlast a power cut.
        """
        try:
            flush_directory(self.work)
            if self._target.exists():
                self._target.rmdir()  # it was empty; if it is no more, this fails
            self.work.rename(self._target)
            flush_directory(self._target.resolve().parent)
        except OSError as error:
            self._explain(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        self._explain(error)

    def _remove(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)  # after `commit` it is gone
        unregister(self.work)

    def _explain(self, error: BaseException | None) -> None:
        """Raise an error of ours for one of the system."""
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(str(self._target), "cannot be written", error) from error
