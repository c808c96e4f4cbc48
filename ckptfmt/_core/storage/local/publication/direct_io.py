"""Writing to any place of a new file, from several threads, and past the page cache where that is possible.

What is written here is not read again soon, and to fill the page cache with gigabytes is slow and takes it from the
data of the training. There are three ways, and the first that the system offers is taken:

1. **Uncached**: `RWF_DONTCACHE` of Linux. Each write is copied to the page cache, goes to the disk at once, and
   its pages are given back when it is there, so that a few of them serve the whole file.
2. **Direct**: `O_DIRECT`. It takes only whole blocks: their place in the file, their length and their place in
   memory are multiples of the block size. So of what is to be written,
   whole blocks that lie right in memory go to the file from where they are;
   other whole blocks go there by way of a buffer that lies right, one for each thread;
   pieces of blocks are gathered until their block is complete, or all is written.
3. **Ordinary**, where the file system is not known to be a local one, or refuses the others.

In every way, each byte is written once: a second write of it is refused, and `finish` counts them.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import threading
from collections.abc import Container
from enum import Enum
from pathlib import Path

from ckptfmt._core.storage.local.publication.coverage import Coverage
from ckptfmt._core.storage.local.source import LocalSource

try:
    import fcntl
except ImportError:  # Windows
    HAVE_FCNTL = False
else:
    HAVE_FCNTL = True

__all__ = ["BLOCK_BYTES", "PlacedWriter", "Way"]

BLOCK_BYTES = 4096
"""A multiple of the sector size of every disk in use, and the size of a page."""

_BUFFER_BYTES = 4 << 20
_HUGE_PAGE_BYTES = 2 << 20
# A longer write may be cut short, and on macOS it fails.
_LARGEST_WRITE_BYTES = 1 << 30
# On network and FUSE file systems O_DIRECT has other meanings: it is a matter of caches between machines there.
_LOCAL_FILE_SYSTEMS = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "xfs"})

_RWF_DONTCACHE = 0x80  # linux/fs.h; Python's os has no name for it
# Linux has had it since 6.14, and switched it off in 6.15 (commit 478ad02d6844) for faults that 6.16 has mended.
_FIRST_SOUND_DONTCACHE = (6, 16)
_REFUSED = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


class Way(Enum):
    """How writes reach the disk."""

    UNCACHED = "uncached"
    DIRECT = "direct"
    ORDINARY = "ordinary"


class _Gathered:
    """The pieces of one block."""

    def __init__(self) -> None:
        self.content = bytearray(BLOCK_BYTES)
        self.nbytes = 0


class PlacedWriter:
    """Writes buffers at their places in a file that is empty at first. What is not written is zero.

    Args:
        descriptor: The file, empty and open for writing. It stays the caller's.
        ways: The ways to try. The ordinary one needs no mention.
    """

    def __init__(self, descriptor: int, ways: Container[Way] = frozenset()) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._gathered: dict[int, _Gathered] = {}
        self._taken = Coverage()
        self._written_bytes = 0
        self._buffers = threading.local()
        self._way = _choose_way(descriptor, ways)
        # Whatever way is taken later: blocks that have begun are still to be completed.
        self._in_blocks = self._way is Way.DIRECT

    @property
    def way(self) -> Way:
        """How writes reach the disk."""
        return self._way

    def write_at(self, offset: int, buffer: bytes | bytearray | memoryview) -> None:
        """Write all of a contiguous buffer. Any thread may call it.

        Raises:
            OSError: Not all could be written, or one of the bytes has been written before.
        """
        view = memoryview(buffer).cast("B")
        with self._lock:
            self._taken.add(offset, offset + len(view))
        self._put(offset, view)
        with self._lock:
            self._written_bytes += len(view)

    def _put(self, offset: int, view: memoryview) -> None:
        if not self._in_blocks:
            self._write(offset, view)
            return
        first = min(-(-offset // BLOCK_BYTES) * BLOCK_BYTES, offset + len(view))
        last = max((offset + len(view)) // BLOCK_BYTES * BLOCK_BYTES, first)
        self._gather(offset, view[: first - offset])
        self._gather(last, view[last - offset :])
        self._write_blocks(first, view[first - offset : last - offset])

    def copy_from(self, source: LocalSource, offset: int, nbytes: int) -> bool:
        """Let the system copy the first bytes of the file from another one, before anything is written.

        Returns:
            Whether it did; if not, they are to be written.

        Raises:
            OSError: Not all could be written.
        """
        direct = self._way is Way.DIRECT
        if direct:  # the system would copy up to the last whole block, and give up there
            _make_ordinary(self._descriptor)
        copied = source.copy_into(offset, nbytes, self._descriptor)
        if direct and not copied:
            _make_direct(self._descriptor)
        if copied:
            self._taken.add(0, nbytes)
            self._written_bytes += nbytes
        return copied

    def finish(self, written_bytes: int | None = None) -> None:
        """Write the blocks that were never completed; the file may end up to a block too late.

        Args:
            written_bytes: How many bytes were to be written, if the caller knows.

        Raises:
            OSError: Not all could be written; or other than all bytes were, each once.
        """
        wanted = self._taken.nbytes if written_bytes is None else written_bytes
        if not wanted == self._taken.nbytes == self._written_bytes:
            raise OSError(
                f"{self._written_bytes:,} bytes are written, {self._taken.nbytes:,} were begun and {wanted:,} planned; "
                "nothing is published, and this is a fault in ckptfmt: report it"
            )
        for offset, block in sorted(self._gathered.items()):
            self._write_blocks(offset, memoryview(block.content))
        self._gathered.clear()

    def _gather(self, offset: int, piece: memoryview) -> None:
        if not piece:
            return
        start = offset // BLOCK_BYTES * BLOCK_BYTES
        with self._lock:
            block = self._gathered.setdefault(start, _Gathered())
            block.content[offset - start : offset - start + len(piece)] = piece
            block.nbytes += len(piece)
            if block.nbytes < BLOCK_BYTES:
                return
            del self._gathered[start]
        self._write_blocks(start, memoryview(block.content))

    def _write_blocks(self, offset: int, blocks: memoryview) -> None:
        if _lies_right(blocks):
            self._write(offset, blocks)
            return
        buffer = self._buffer()
        for start in range(0, len(blocks), len(buffer)):
            part = blocks[start : start + len(buffer)]
            buffer[: len(part)] = part
            self._write(offset + start, buffer[: len(part)])

    def _write(self, offset: int, rest: memoryview) -> None:
        while rest:
            way = self._way
            try:
                count = _write_some(self._descriptor, rest[:_LARGEST_WRITE_BYTES], offset, way, self._lock)
            except OSError as error:
                if error.errno not in _REFUSED or way is Way.ORDINARY:
                    raise
                self._give_up(way)  # it was promised too much: blocks are larger here, for one
                continue
            if way is Way.DIRECT:
                count -= count % BLOCK_BYTES  # the rest of that block comes again, as a whole
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))  # or it would go on for ever
            offset += count
            rest = rest[count:]

    def _give_up(self, way: Way) -> None:
        if way is Way.DIRECT:
            _make_ordinary(self._descriptor)
        self._way = Way.ORDINARY

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._buffers, "buffer", None)
        if buffer is None:
            buffer = self._buffers.buffer = _aligned_buffer()
        return buffer


def _write_some(descriptor: int, data: memoryview, offset: int, way: Way, lock: threading.Lock) -> int:
    if way is Way.UNCACHED:
        return os.pwritev(descriptor, [data], offset, _RWF_DONTCACHE)
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with lock:  # Windows can't write at a position: there the threads take turns at moving the file's own
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def _aligned_buffer() -> memoryview:
    """Return a buffer that lies right, on huge pages if there are any: a request of the disk takes so many pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return memoryview(mmap.mmap(-1, _BUFFER_BYTES))  # pages lie right
    memory = mmap.mmap(-1, _BUFFER_BYTES + _HUGE_PAGE_BYTES)
    memory.madvise(mmap.MADV_HUGEPAGE)
    first = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _HUGE_PAGE_BYTES
    return memoryview(memory)[first : first + _BUFFER_BYTES]


def _lies_right(blocks: memoryview) -> bool:
    if not blocks or blocks.readonly:  # of memory that may only be read, the address is not to be had
        return not blocks
    return ctypes.addressof(ctypes.c_char.from_buffer(blocks)) % BLOCK_BYTES == 0


def _choose_way(descriptor: int, ways: Container[Way]) -> Way:
    if Way.UNCACHED in ways and _takes_uncached(descriptor):
        return Way.UNCACHED
    if Way.DIRECT in ways and _make_direct(descriptor):
        return Way.DIRECT
    return Way.ORDINARY


def _takes_uncached(descriptor: int) -> bool:
    """Say whether uncached writes work, by one of a zero, which the file would have there anyway."""
    if not hasattr(os, "pwritev") or _linux_version() < _FIRST_SOUND_DONTCACHE:
        return False
    try:
        return os.pwritev(descriptor, [b"\0"], 0, _RWF_DONTCACHE) == 1
    except (OSError, NotImplementedError):  # the C library may be older than the system
        return False


def _linux_version() -> tuple[int, ...]:
    """Return the first two numbers of the version of Linux; none of another system."""
    if os.uname().sysname != "Linux":
        return ()
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return tuple(map(int, found.groups())) if found else ()


def _make_direct(descriptor: int) -> bool:
    """Let writes to a file go past the page cache; say whether they do."""
    if not (HAVE_FCNTL and hasattr(os, "O_DIRECT") and _file_system(descriptor) in _LOCAL_FILE_SYSTEMS):
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        return False
    return True


def _make_ordinary(descriptor: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT)


def _file_system(descriptor: int) -> str | None:
    """Return the kind of file system that a file is on, if the system tells."""
    device = os.fstat(descriptor).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for mount in mounts:  # of the form: 36 35 98:0 /root /mount/point options - ext4 source options
        before, _, after = mount.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return None
