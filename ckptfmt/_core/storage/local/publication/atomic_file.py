"""Publication of a file as a whole or not at all (spec 15.3, 15.4)."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptfmt._core.storage.base import Source
from ckptfmt._core.storage.local.durability import flush_file, reserve_space
from ckptfmt._core.storage.local.os_errors import free_bytes, storage_error
from ckptfmt._core.storage.local.paths import local_path, resolve_target
from ckptfmt._core.storage.local.publication.direct_io import PlacedWriter, Way
from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers
from ckptfmt._core.storage.local.publication.renaming import free_names
from ckptfmt._core.storage.local.publication.temporary import TemporaryFile
from ckptfmt._core.storage.local.source import LocalSource
from ckptfmt.errors import StorageError

__all__ = ["AtomicFile"]

# Below this, what the page cache costs is not worth the trouble.
_LARGE_BYTES = 1 << 20
_PAST_THE_CACHE = (Way.UNCACHED, Way.DIRECT)


class AtomicFile:
    """A file that appears at its path whole, on stable storage, or not at all.

    ```python
    with AtomicFile("a.ckptfmt") as file:
        file.write(content)
        file.commit()
    ```

    What is written goes to a temporary file in the same directory, which `commit` renames. Whatever happens
    before, an exception, an interrupt or a kill, what stood at the path stays as it was; leaving the `with`
    without `commit` gives the new content up. Only after a kill does the temporary file stay behind, until
    the next `AtomicFile` for the same path removes it.

    The new file's mode comes from the umask, also when it replaces another one. To carry over the old mode
    alone, without its owner, group and access list, could open the file to others than it was open to.

    At a symbolic link, the file that it leads to is replaced and the link stays.

    Several threads may call `write_at` at once; everything else is for one thread.

    Args:
        path: Where the file is to appear. Its directory must exist.
        expected_bytes: The final length, if it is known: where the file system can, the space is reserved at
            once, so that a full disk shows before the work is done. The file may still become shorter or longer.
        replace: What stands at the path is replaced. False: nothing ever is, neither what stands there now nor what
            comes meanwhile. Where the name is taken, by a link or anything else, the file appears as `NAME-2.EXT`
            beside it, or as `NAME-3.EXT`, and so on.
        guard: Held while the file gets its name. If it raises, nothing is published and the content is given up.

    Attributes:
        path: The path as given; once it is published, its path.
        position: How many bytes have been written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        expected_bytes: int | None = None,
        replace: bool = True,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.path = local_path(path)
        self.position = 0
        self._guard = guard
        self._replace = replace
        self._expected_bytes = expected_bytes or 0
        self._target: Path | None = None
        self._temporary: TemporaryFile | None = None
        self._writer: PlacedWriter | None = None
        self._failed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Remove the leftovers of dead writers and create the temporary file.

        Raises:
            StorageError: Nothing can be published at the path, or there is not enough space.
        """
        self._attempt("cannot be saved", self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, buffer: bytes | bytearray | memoryview) -> None:
        """Append all bytes of a contiguous buffer.

        Raises:
            StorageError: Not all could be written. The new content is given up.
        """
        self._attempt("cannot be saved", lambda: self._append(memoryview(buffer).cast("B")))

    def write_at(self, offset: int, buffer: bytes | bytearray | memoryview) -> None:
        """Write all bytes of a contiguous buffer at a place of its own. What is left out in between is zero.

        Whoever calls it from several threads has to end them before `abort`.

        Raises:
            StorageError: Not all could be written, or one of the bytes has been written before. The new content cannot
                be published any more.
        """
        view = memoryview(buffer).cast("B")
        writer = self._placed()
        with self._lock:
            self.position = max(self.position, offset + view.nbytes)
        try:
            writer.write_at(offset, view)
        except BaseException as error:
            self._failed = True
            if isinstance(error, OSError):
                raise storage_error(self.path, "cannot be saved", error, self._figures(error)) from error
            raise

    def copy_from(self, source: Source, offset: int, nbytes: int) -> bool:
        """Let the system copy the first bytes of the file from another one; say whether it did.

        If not, write them. If it did, they are not to be written again. Verify them: the system does not.

        Raises:
            StorageError: They could not be written. The new content is given up.
        """
        if not isinstance(source, LocalSource):
            return False
        copied = False

        def copy() -> None:
            nonlocal copied
            copied = self._placed().copy_from(source, offset, nbytes)

        self._attempt("cannot be saved", copy)
        if copied:
            self.position = max(self.position, nbytes)
        return copied

    def commit(self, *, written_bytes: int | None = None) -> None:
        """Publish what has been written, and wait until it is on stable storage.

        Args:
            written_bytes: How many bytes were to be written, without those that were left out: no others are published.

        Raises:
            StorageError: It was not published and is given up; or, as the message then says, it was published
                but may not outlast a power cut.
        """
        temporary = self._opened()
        if self._failed:
            raise ValueError(f"{self.path}: not all of it could be written, and nothing is published")
        self._attempt("cannot be saved", lambda: self._publish(temporary, written_bytes))
        try:
            self._attempt("is saved, but may be lost in a power cut", temporary.flush_name)
        finally:
            temporary.discard()

    def abort(self) -> None:
        """Give up what has been written, unless it is published. A second call does nothing."""
        if self._temporary is not None:
            self._temporary.discard()
            self._temporary = None

    def _attempt(self, failure: str, step: Callable[[], None]) -> None:
        """Do one step. If it does not come to its end, whatever the reason, give the new content up."""
        try:
            step()
        except BaseException as error:
            self.abort()
            if isinstance(error, OSError) and not isinstance(error, StorageError):
                raise storage_error(self.path, failure, error, self._figures(error)) from error
            raise

    def _begin(self) -> None:
        if self._target is not None:
            raise ValueError(f"{self.path}: an AtomicFile publishes once; make another one")
        self._target = target = resolve_target(self.path, follow=self._replace)
        clean_leftovers(target.parent, target.name)
        self._temporary = TemporaryFile(target)
        descriptor = self._temporary.create()
        reserve_space(descriptor, self._expected_bytes)
        large = self._expected_bytes >= _LARGE_BYTES
        self._writer = PlacedWriter(descriptor, _PAST_THE_CACHE if large else ())

    def _append(self, view: memoryview) -> None:
        offset = self.position
        self.position += view.nbytes
        self._placed().write_at(offset, view)

    def _publish(self, temporary: TemporaryFile, written_bytes: int | None) -> None:
        self._placed().finish(written_bytes)
        if os.fstat(temporary.descriptor).st_size != self.position:
            os.ftruncate(temporary.descriptor, self.position)  # less was written than reserved
        temporary.open_up()
        flush_file(temporary.descriptor)
        try:
            with self._guard():
                self._rename(temporary)
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.path}: cannot be saved: its directory, or the temporary file in it, "
                "was removed meanwhile; find out by whom and save again"
            ) from error
        self._temporary = None

    def _rename(self, temporary: TemporaryFile) -> None:
        if self._replace:
            temporary.rename()
            return
        for path in free_names(temporary.target):
            with contextlib.suppress(FileExistsError):
                temporary.rename(path)
                self.path = str(Path(self.path).with_name(path.name))
                return

    def _opened(self) -> TemporaryFile:
        if self._temporary is None:
            raise ValueError(f"{self.path}: is not being saved: not begun yet, or ended")
        return self._temporary

    def _placed(self) -> PlacedWriter:
        self._opened()
        assert self._writer is not None  # it comes with the temporary file
        return self._writer

    def _figures(self, error: OSError) -> str:
        needed = f"{max(self.position, self._expected_bytes):,} bytes or more are needed"
        if error.errno == errno.ENOSPC and self._target is not None:
            free = free_bytes(self._target.parent)
            return needed if free is None else f"{needed}, {free:,} are free"
        return needed if error.errno in {errno.EDQUOT, errno.EFBIG} else ""
