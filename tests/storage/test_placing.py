"""Writes to any place of a file, past the page cache and not, in any order and from several threads."""

from __future__ import annotations

import errno
import mmap
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.coverage import Coverage
from ckptfmt._core.storage.local.publication.direct_io import BLOCK_BYTES, PlacedWriter, Way
from ckptfmt._core.storage.local.source import open_source
from ckptfmt._core.system.workers import cores
from ckptfmt.errors import StorageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="opens its files as POSIX does")

CONTENT = random.Random(0).randbytes(40 * BLOCK_BYTES + 123)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def content_of(descriptor: int, nbytes: int = len(CONTENT)) -> bytes:
    os.ftruncate(descriptor, nbytes)
    return (
        Path(f"/proc/self/fd/{descriptor}").read_bytes() if sys.platform == "linux" else os.pread(descriptor, nbytes, 0)
    )


def in_pages(content: bytes, shift: int) -> memoryview:
    """Return the content in memory that begins so many bytes behind the start of a page."""
    memory = memoryview(mmap.mmap(-1, len(content) + shift + 1))[shift : shift + len(content)]
    memory[:] = content
    return memory


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(1, len(CONTENT) - 1), max_size=12, unique=True).map(sorted),
    order=st.randoms(use_true_random=False),
    way=st.sampled_from(Way),
    shift=st.sampled_from([0, 1, 512]),
)
def test_pieces_in_any_order_make_the_whole(
    tmp_path: Path, cuts: list[int], order: random.Random, way: Way, shift: int
) -> None:
    pieces = list(zip([0, *cuts], [*cuts, len(CONTENT)], strict=True))
    order.shuffle(pieces)
    memory = in_pages(CONTENT, shift)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        writer = PlacedWriter(descriptor, {way})
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda piece: writer.write_at(piece[0], memory[slice(*piece)]), pieces))
        writer.finish()
        assert content_of(descriptor) == CONTENT
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("way", Way)
def test_what_is_left_out_is_zero(descriptor: int, way: Way) -> None:
    writer = PlacedWriter(descriptor, {way})
    writer.write_at(10, b"abc")
    writer.write_at(5 * BLOCK_BYTES + 7, CONTENT)
    writer.finish()
    expected = bytearray(5 * BLOCK_BYTES + 7) + CONTENT
    expected[10:13] = b"abc"
    assert content_of(descriptor, len(expected)) == expected


@pytest.mark.parametrize("way", [Way.UNCACHED, Way.DIRECT])
def test_a_file_system_that_refuses_later_gets_ordinary_writes(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    writer = PlacedWriter(descriptor, {way})
    if writer.way is not way:
        pytest.skip(f"no {way.value} writes here")
    name = "pwritev" if way is Way.UNCACHED else "pwrite"
    whole_write = getattr(os, name)
    refusals = []

    def refuse_the_second(*arguments: object) -> object:
        refusals.append(arguments)
        if len(refusals) == 2:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return whole_write(*arguments)

    monkeypatch.setattr(os, name, refuse_the_second)
    writer.write_at(0, CONTENT[: 8 * BLOCK_BYTES])
    writer.write_at(8 * BLOCK_BYTES, CONTENT[8 * BLOCK_BYTES :])
    writer.finish()
    assert writer.way is Way.ORDINARY
    assert content_of(descriptor) == CONTENT


def test_blocks_begun_before_a_refusal_are_completed_after_it(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = PlacedWriter(descriptor, {Way.DIRECT})
    before = writer.way
    if before is not Way.DIRECT:
        pytest.skip("no direct writes here")
    whole_write = os.pwrite
    refusals = iter([OSError(errno.EINVAL, os.strerror(errno.EINVAL))])

    def refuse_the_first(number: int, data: memoryview, offset: int) -> int:
        for refusal in refusals:
            raise refusal
        return whole_write(number, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse_the_first)
    writer.write_at(0, CONTENT[:100])  # waits for the rest of its block
    writer.write_at(BLOCK_BYTES, CONTENT[BLOCK_BYTES:])  # is refused, and goes the ordinary way
    writer.write_at(100, CONTENT[100:BLOCK_BYTES])
    writer.finish()
    assert writer.way is Way.ORDINARY
    assert content_of(descriptor) == CONTENT


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_system_without_uncached_writes_gets_direct_ones(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwritev", refuse)
    direct = PlacedWriter(descriptor, {Way.DIRECT}).way
    writer = PlacedWriter(descriptor, {Way.UNCACHED, Way.DIRECT})
    assert writer.way is direct
    writer.write_at(0, CONTENT)
    writer.finish()
    assert content_of(descriptor) == CONTENT


@pytest.mark.parametrize("release", ["6.15.9-generic", "5.4.0", "6.9", "strange"])
def test_versions_whose_uncached_writes_have_faults_are_not_asked(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    names = type("Names", (), {"sysname": "Linux", "release": release})
    monkeypatch.setattr(os, "uname", lambda: names)
    assert PlacedWriter(descriptor, {Way.UNCACHED}).way is Way.ORDINARY


@pytest.mark.parametrize("count", [BLOCK_BYTES, BLOCK_BYTES + 100])
def test_writes_cut_short_are_continued_at_a_block(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    writer = PlacedWriter(descriptor, {Way.DIRECT})
    whole_write = os.pwrite

    def short_write(number: int, data: memoryview, offset: int) -> int:
        whole_write(number, data, offset)
        return min(len(data), count)

    monkeypatch.setattr(os, "pwrite", short_write)
    writer.write_at(0, CONTENT)
    writer.finish()
    assert content_of(descriptor) == CONTENT


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("offered", [True, False])
def test_the_system_copies_to_the_last_byte_or_leaves_it_to_writes(
    tmp_path: Path, descriptor: int, monkeypatch: pytest.MonkeyPatch, way: Way, offered: bool
) -> None:
    (tmp_path / "source").write_bytes(b"front" + CONTENT)
    if not offered:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    writer = PlacedWriter(descriptor, {way})
    before = writer.way
    with open_source(tmp_path / "source") as source:
        copied = writer.copy_from(source, 5, len(CONTENT))
    assert copied == (offered and hasattr(os, "copy_file_range"))
    if not copied:
        writer.write_at(0, CONTENT)
    writer.finish()
    assert writer.way is before
    assert content_of(descriptor) == CONTENT


def test_large_files_pass_the_page_cache_by(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "large", expected_bytes=2 << 20) as file:
        file.write_at(1 << 20, bytes(1 << 20))
        file.write_at(0, bytes(1 << 20))
        assert file._writer is not None
        way = file._writer.way
        file.commit()
    assert (tmp_path / "large").read_bytes() == bytes(2 << 20)
    if way is Way.ORDINARY:
        pytest.skip("this file system has neither uncached nor direct writes")


@st.composite
def overlapping_pieces(draw: st.DrawFn) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Draw pieces that make up all or some of `CONTENT`, in any order, and one that has a byte of theirs."""
    cuts = draw(st.lists(st.integers(0, len(CONTENT)), min_size=2, max_size=12, unique=True).map(sorted))
    pieces = draw(st.permutations(list(pairwise(cuts))))
    start = draw(st.integers(cuts[0], cuts[-1] - 1))
    begin = draw(st.integers(max(0, start - 2 * BLOCK_BYTES), start))
    return pieces, (begin, draw(st.integers(start + 1, min(len(CONTENT), start + 2 * BLOCK_BYTES))))


@pytest.mark.parametrize("way", Way)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=overlapping_pieces(), data=st.data())
def test_no_byte_is_written_twice(
    tmp_path: Path, way: Way, drawn: tuple[list[tuple[int, int]], tuple[int, int]], data: st.DataObject
) -> None:
    pieces, second = drawn
    order = [*pieces]
    order.insert(data.draw(st.integers(0, len(pieces)), label="place of the second"), second)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        writer = PlacedWriter(descriptor, {way})
        with pytest.raises(OSError) as caught:  # noqa: PT012 - whichever of the two comes last
            for begin, end in order:
                writer.write_at(begin, CONTENT[begin:end])
        assert caught.value.errno is None, "this is no refusal by the system"
    finally:
        os.close(descriptor)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=30))
def test_the_ranges_of_a_coverage_are_a_set_of_bytes(ranges: list[tuple[int, int]]) -> None:
    coverage, expected = Coverage(), set[int]()
    for start, nbytes in ranges:
        added = set(range(start, start + nbytes))
        if added & expected:
            with pytest.raises(OSError):
                coverage.add(start, start + nbytes)
        else:
            coverage.add(start, start + nbytes)
            expected |= added
        assert coverage.nbytes == len(expected)


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("planned", [len(CONTENT) - 1, len(CONTENT) + 1, 0])
def test_other_than_the_planned_bytes_are_not_finished(descriptor: int, way: Way, planned: int) -> None:
    writer = PlacedWriter(descriptor, {way})
    writer.write_at(100, CONTENT)
    with pytest.raises(OSError) as caught:
        writer.finish(planned)
    assert caught.value.errno is None, "this is no refusal by the system"
    writer.finish(len(CONTENT))


@pytest.mark.parametrize("way", [Way.ORDINARY, Way.DIRECT])
def test_nothing_is_finished_while_it_is_being_written(
    descriptor: int, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    writer = PlacedWriter(descriptor, {way})
    whole_write = os.pwrite
    found: list[int | None] = []

    def finish_first(number: int, data: memoryview, offset: int) -> int:
        with pytest.raises(OSError) as caught:
            writer.finish()
        found.append(caught.value.errno)
        return whole_write(number, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", finish_first)
        writer.write_at(0, CONTENT[: 2 * BLOCK_BYTES])
    assert set(found) == {None}, "this is no refusal by the system"
    writer.finish()


def test_a_file_that_lacks_a_planned_byte_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with AtomicFile(tmp_path / "a") as file:
        file.write_at(0, CONTENT[:5000])
        file.write_at(6000, CONTENT[6000:])
        with pytest.raises(StorageError):
            file.commit(written_bytes=len(CONTENT))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_after_a_failure_in_a_thread_nothing_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with AtomicFile(tmp_path / "a") as file:
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
            patch.setattr(os, "pwrite", fail)
            with pytest.raises(StorageError) as caught:
                pool.submit(file.write_at, 0, b"new").result()
        assert caught.value.errno == errno.EIO
        with pytest.raises(ValueError):
            file.commit()
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_one_machine_share_its_cores() -> None:
    alone = cores({})
    assert 1 <= cores({"LOCAL_WORLD_SIZE": "2"}) <= max(1, alone)
    assert cores({"LOCAL_WORLD_SIZE": "1000"}) == 1
    assert cores({"LOCAL_WORLD_SIZE": "many"}) == alone
