"""What the operating system is asked: the state of the page cache, the memory in use, what machine this is."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "PeakMemory",
    "disturbance",
    "evict",
    "files_below",
    "machine",
    "peak_memory",
    "remove",
    "resident_share",
    "warm",
]

_PAGE = mmap.PAGESIZE
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def files_below(path: Path) -> list[Path]:
    """Return the file at `path`, or all files below the directory there."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def remove(path: Path) -> None:
    """Remove a file or directory, if it is there, and let the disk come to rest."""
    for file in files_below(path):
        file.unlink()
    if path.is_dir():
        for directory in sorted(path.rglob("*"), reverse=True):
            directory.rmdir()
        path.rmdir()
    os.sync()


def warm(path: Path) -> None:
    """Bring all of a file or directory into the page cache."""
    buffer = bytearray(8 << 20)
    for file in files_below(path):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def evict(path: Path) -> bool:
    """Drop a file or directory from the page cache; say whether it is gone from there.

    What lies below, the cache of a disk or of the machine that this one is a guest of, is out of reach.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in files_below(path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # dirty pages would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return resident_share(path) < 0.01


def resident_share(path: Path) -> float:
    """Return which part of a file or directory is in the page cache."""
    resident = total = 0
    for file in files_below(path):
        size = file.stat().st_size
        if not size:
            continue
        pages = -(-size // _PAGE)
        total += pages
        with file.open("r+b") as stream, mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_COPY) as view:
            found = (ctypes.c_ubyte * pages)()
            anchor = ctypes.c_char.from_buffer(view)
            failed = ctypes.CDLL(None, use_errno=True).mincore(
                ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), found
            )
            del anchor
            if failed:
                return 1.0
            resident += sum(page & 1 for page in found)
    return resident / max(total, 1)


@dataclass
class PeakMemory:
    """How much memory was in use at most beyond what was in use before.

    Attributes:
        nbytes: In bytes; None where the system does not tell.
    """

    nbytes: int | None = None


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the block. Mapped pages of files count, once they are touched."""
    peak = PeakMemory()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        _CLEAR_REFS.write_text("5")  # from here on the high-water mark counts anew
    except OSError:
        yield peak
        return
    before = _status("VmRSS")
    yield peak
    peak.nbytes = max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    return 0


def disturbance() -> str:
    """Return the load of the last minute, as a sign of what else is going on."""
    return f"{os.getloadavg()[0]:.2f}"


def machine(directory: Path) -> dict[str, str]:
    """Return facts about the machine, for whoever reads the results."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{cpu}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": _file_system(directory),
        "python": platform.python_version(),
    }


def _file_system(directory: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, found, *_ = line.split()
        if str(directory.resolve()).startswith(where) and len(where) >= len(best):
            best, kind = where, found
    return kind
