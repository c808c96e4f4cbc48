"""Ranged reads are exact, from any thread, with and without the system's positional reads."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt._core.storage.local.source import LocalSource, open_source
from ckptfmt._escaping import escape
from ckptfmt.errors import ReadError, StorageError

CONTENT = random.Random(1).randbytes(100_003)
RANGES = st.tuples(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT))).map(sorted)


Opener = Callable[[Path], LocalSource]


@pytest.fixture(scope="module", params=["positional", "seek"])
def open_file(request: pytest.FixtureRequest) -> Opener:
    """`open_source` on this system, and as if it had no positional reads (Windows)."""
    if request.param == "positional" and not hasattr(os, "preadv"):
        pytest.skip("this system has no positional reads")

    def open_so(path: Path) -> LocalSource:
        with pytest.MonkeyPatch.context() as patch:
            if request.param == "seek":
                patch.delattr(os, "preadv", raising=False)
            return open_source(path)

    return open_so


@pytest.fixture(scope="module")
def source(open_file: Opener, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSource]:
    path = tmp_path_factory.mktemp("reading") / "a.ckptfmt"
    path.write_bytes(CONTENT)
    with open_file(path) as result:
        yield result


@given(bounds=RANGES)
def test_a_range_is_what_slicing_gives(source: LocalSource, bounds: list[int]) -> None:
    begin, end = bounds
    assert source.read(begin, end - begin) == CONTENT[begin:end]
    buffer = bytearray(end - begin)
    source.read_into(begin, memoryview(buffer))
    assert buffer == CONTENT[begin:end]


def test_threads_do_not_disturb_one_another(source: LocalSource) -> None:
    numbers = random.Random(2)
    begins = [numbers.randrange(len(CONTENT) - 1000) for _ in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda begin: source.read(begin, 1000), begins))
    assert parts == [CONTENT[begin : begin + 1000] for begin in begins]


def test_only_the_bytes_asked_for_are_changed(source: LocalSource) -> None:
    buffer = bytearray(b"-" * 30)
    source.read_into(5, memoryview(buffer)[10:20])
    assert buffer == b"-" * 10 + CONTENT[5:15] + b"-" * 10


def test_any_contiguous_memory_can_be_filled(source: LocalSource) -> None:
    buffer = memoryview(bytearray(48)).cast("i", (4, 3))
    source.read_into(7, buffer)
    assert buffer.tobytes() == CONTENT[7:55]


@given(bounds=RANGES)
def test_what_is_cached_is_the_beginning_of_the_range(source: LocalSource, bounds: list[int]) -> None:
    begin, end = bounds
    buffer = bytearray(b"-" * (end - begin))
    count = source.read_cached(begin, memoryview(buffer))
    assert buffer == CONTENT[begin : begin + count] + b"-" * (end - begin - count)


def test_the_cache_is_not_asked_for_what_is_outside_the_file(source: LocalSource) -> None:
    with pytest.raises(ValueError, match=str(len(CONTENT))):
        source.read_cached(len(CONTENT) - 3, memoryview(bytearray(4)))


@pytest.mark.parametrize(("offset", "nbytes"), [(-1, 1), (0, -1), (100_003, 1), (0, 100_004), (2**62, 2**62)])
def test_a_range_outside_the_file_is_refused(source: LocalSource, offset: int, nbytes: int) -> None:
    with pytest.raises(ValueError, match=str(len(CONTENT))):
        source.read(offset, nbytes)


def test_a_file_that_shrinks_is_reported(open_file: Opener, tmp_path: Path) -> None:
    shrinking = tmp_path / "shrinking.ckptfmt"
    shrinking.write_bytes(CONTENT)
    with open_file(shrinking) as source:
        os.truncate(shrinking, 50_000)
        assert source.read(0, 50_000) == CONTENT[:50_000]
        with pytest.raises(StorageError, match=r"shrinking\.ckptfmt"):
            source.read(49_000, 2000)


def test_a_closed_source_is_not_read(open_file: Opener, tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    path.write_bytes(CONTENT)
    source = open_file(path)
    source.close()
    source.close()
    with pytest.raises(ValueError):
        source.read(0, 1)


def test_path_and_size_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    path.write_bytes(CONTENT)
    for given_path in (path, str(path)):
        with open_source(given_path) as source:
            assert source.path == str(path)
            assert source.size == len(CONTENT)


def test_signals_do_not_break_a_read(source: LocalSource) -> None:
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        assert all(source.read(0, len(CONTENT)) == CONTENT for _ in range(200))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_reads_cut_short_by_the_system_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.ckptfmt"
    file.write_bytes(CONTENT)
    whole_read, whole_bytes = os.preadv, os.pread

    def short_read(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        return whole_read(descriptor, [buffers[0].cast("B")[:777]], offset)

    monkeypatch.setattr(os, "preadv", short_read)
    monkeypatch.setattr(os, "pread", lambda descriptor, nbytes, at: whole_bytes(descriptor, min(nbytes, 777), at))
    with open_source(file) as source:
        assert source.read(3, 90_000) == CONTENT[3:90_003]
        numbers = memoryview(bytearray(80_000)).cast("i", (200, 100))
        source.read_into(3, numbers)
    assert numbers.tobytes() == CONTENT[3:80_003]


def test_a_failing_disk_is_reported_with_the_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.ckptfmt"
    file.write_bytes(CONTENT)

    def failing_read(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", failing_read)
    monkeypatch.setattr(os, "pread", failing_read)
    with open_source(file) as source, pytest.raises(ReadError) as caught:
        source.read(4096, 10)
    assert (caught.value.offset, caught.value.errno) == (4096, errno.EIO)


def is_named(path: str | Path, error: StorageError) -> bool:
    """Say whether an error names a path; a name that no file can have is shown as Python writes it."""
    return str(path) in str(error) or escape(repr(path)) in str(error)


def test_what_can_not_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    refused: dict[str | Path, int | None] = {
        tmp_path / "missing.ckptfmt": errno.ENOENT,
        tmp_path: None,
        tmp_path / "file" / "a.ckptfmt": errno.ENOTDIR,
        tmp_path / "circle": errno.ELOOP,
        tmp_path / ("n" * 300): errno.ENAMETOOLONG,
        os.devnull: None,
        "": None,
        "nul\0byte": None,
        "half \ud800 character": None,
    }
    for path, code in refused.items():
        with pytest.raises(StorageError) as caught:
            open_source(path)
        assert caught.value.errno == code
        assert is_named(path, caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/a.ckptfmt", "obs://bucket/a.ckptfmt", "file:///a.ckptfmt"])
def test_a_url_is_refused_with_advice(url: str) -> None:
    with pytest.raises(StorageError, match=url):
        open_source(url)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ckptfmt"
    os.mkfifo(pipe)
    code = "import sys; from ckptfmt._core.storage.local.source import open_source; open_source(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, pipe], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].startswith(f"ckptfmt.errors.StorageError: {pipe}: ")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(os.devnull)])
def test_pipes_and_devices_are_not_even_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a.ckptfmt")
    opened: list[object] = []
    monkeypatch.setattr(os, "open", lambda *arguments: opened.append(arguments))
    with pytest.raises(StorageError, match=r"a\.ckptfmt"):
        open_source(tmp_path / "a.ckptfmt")
    assert not opened, "to open one can have an effect: it wakes the writer of a pipe"


def test_a_pipe_that_takes_the_place_of_the_file_is_refused_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ckptfmt"
    os.mkfifo(pipe)
    code = f"""
import os, pathlib, sys
from ckptfmt._core.storage.local.source import open_source
regular = os.stat(sys.executable)
assert {stat.S_IFREG} == __import__("stat").S_IFMT(regular.st_mode)
pathlib.Path.stat = lambda self: regular  # what it was a moment ago
open_source(sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", code, pipe], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].startswith(f"ckptfmt.errors.StorageError: {pipe}: ")


def test_no_permission_is_reported(tmp_path_for_all: Path, no_privileges: None) -> None:
    file = tmp_path_for_all / "secret.ckptfmt"
    file.touch(0o000)
    with pytest.raises(StorageError, match=r"secret\.ckptfmt") as caught:
        open_source(file)
    assert caught.value.errno == errno.EACCES
