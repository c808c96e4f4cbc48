"""What the machine allows: the same bytes, written, read and copied with nothing else done."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from blake3 import blake3

__all__ = ["Floors", "in_threads", "make_copy"]

_PIECE_BYTES = 4 << 20
_WRITES_AT_ONCE = 8


class Floors:
    """The floors for a number of bytes. All memory is touched before it is measured.

    Args:
        nbytes: How many.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._memory = np.ones(nbytes, np.uint8)
        rest = np.random.default_rng(0).integers(0, 256, min(nbytes, 64 << 20), np.uint8)
        for start in range(0, nbytes, len(rest)):  # a disk may know how to store zeros
            self._memory[start : start + len(rest)] = rest[: nbytes - start]

    def write(self, path: Path) -> None:
        """Write all, past the page cache if the file system can, and make it durable."""
        descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        whole = self.nbytes // mmap.PAGESIZE * mmap.PAGESIZE
        try:
            os.posix_fallocate(descriptor, 0, max(self.nbytes, 1))
            direct = _open_direct(path)
            writable = descriptor if direct is None else direct
            in_threads(_WRITES_AT_ONCE, lambda starts: self._write_pieces(writable, starts, whole), whole, _PIECE_BYTES)
            if direct is not None:
                os.close(direct)
            os.pwrite(descriptor, self._memory[whole:].data, whole)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def _write_pieces(self, descriptor: int, starts: Iterator[int], whole: int) -> None:
        buffer = memoryview(mmap.mmap(-1, _PIECE_BYTES))  # its address is a multiple of the page size
        buffer[:] = self._memory[:_PIECE_BYTES].tobytes().ljust(_PIECE_BYTES, b"\1")
        for offset in starts:
            os.pwrite(descriptor, buffer[: min(_PIECE_BYTES, whole - offset)], offset)

    def read(self, path: Path) -> None:
        """Read all into touched memory, in one thread."""
        view = self._memory.data
        with path.open("rb", buffering=0) as stream:
            position = 0
            while position < self.nbytes and (count := stream.readinto(view[position : position + _PIECE_BYTES])):
                position += count

    def hash_on_all_cores(self) -> None:
        """Hash all with BLAKE3 in pieces, in one thread for each core."""
        view = self._memory.data

        def work(starts: Iterator[int]) -> None:
            for offset in starts:
                blake3(view[offset : offset + _PIECE_BYTES]).digest()

        in_threads(os.cpu_count() or 1, work, self.nbytes, _PIECE_BYTES)

    def read_on_all_cores(self, path: Path) -> None:
        """Read all into touched memory, in one thread for each core."""
        view = self._memory.data
        descriptor = os.open(path, os.O_RDONLY)

        def read(starts: Iterator[int]) -> None:
            for offset in starts:
                os.preadv(descriptor, [view[offset : offset + _PIECE_BYTES]], offset)

        in_threads(os.cpu_count() or 1, read, self.nbytes, _PIECE_BYTES)
        os.close(descriptor)


def make_copy(tensors: Iterable[torch.Tensor]) -> Callable[[], None]:
    """Return one copy of the tensors of a state into memory that was touched before, in one thread."""
    sources = [tensor.detach().reshape(-1).view(torch.uint8).numpy() for tensor in tensors]
    targets = [np.ones(len(source), np.uint8) for source in sources]

    def copy() -> None:
        for source, target in zip(sources, targets, strict=True):
            np.copyto(target, source)

    return copy


def _open_direct(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except (AttributeError, OSError):
        return None


def in_threads(count: int, work: Callable[[Iterator[int]], object], stop: int, step: int = 1) -> None:
    """Share the numbers from 0 to `stop`, `step` apart, among threads, and wait until all are done."""
    threads = [
        threading.Thread(target=work, args=(iter(range(number * step, stop, count * step)),)) for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
