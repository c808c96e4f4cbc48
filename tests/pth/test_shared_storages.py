"""Tensors that share a storage, read by several threads at once."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import cast

import pytest

from ckptfmt._core.pth.data.archive import read_members
from ckptfmt._core.pth.data.storages import MemberData, Rework
from ckptfmt._core.storage import Source, open_source
from ckptfmt.errors import ForeignFileError

PIECE = 64 << 10


class Interrupted:
    """A source that lets other threads run in the middle of each read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.path, self.size = source.path, source.size

    def read(self, offset: int, nbytes: int) -> bytes:
        time.sleep(0.0005)
        return self._source.read(offset, nbytes)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        time.sleep(0.0005)
        self._source.read_into(offset, buffer)

    def view(self, offset: int, nbytes: int) -> memoryview | None:
        time.sleep(0.0005)
        return self._source.view(offset, nbytes)

    def close(self) -> None:
        self._source.close()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_each_thread_gets_the_bytes_that_it_asks_for(tmp_path: Path, method: int) -> None:
    random = Random(0)
    content = random.randbytes(1 << 20)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("data/0", content)
    source = cast("Source", Interrupted(open_source(path)))
    (member,) = read_members(source)
    data = MemberData(source, member)
    starts = [random.randrange(len(content) - PIECE) for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda start: bytes(data.read(start, PIECE)), starts))
    data.finish()
    source.close()
    assert found == [content[start : start + PIECE] for start in starts]


def in_pairs(count: int) -> list[int]:
    """As two threads may read neighbours."""
    return [start ^ 1 for start in range(count)]


def in_strides(count: int) -> list[int]:
    """As eight threads may read, each its own part in order."""
    return [part * (count // 8) + start for start in range(count // 8) for part in range(8)]


@pytest.mark.parametrize("order", [in_pairs, in_strides])
def test_threads_that_read_in_turns_do_not_decompress_it_over_and_over(
    tmp_path: Path, order: Callable[[int], list[int]]
) -> None:
    content = Random(0).randbytes(1 << 10) * (16 << 10)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("data/0", content)
    source = open_source(path)
    (member,) = read_members(source)
    data = MemberData(source, member, Rework(4 * len(content)))
    for start in order(len(content) // PIECE):
        assert data.read(start * PIECE, PIECE) == content[start * PIECE : (start + 1) * PIECE]
    data.finish()
    source.close()


def test_data_that_end_early_are_damaged_however_often_they_are_read(tmp_path: Path) -> None:
    content = Random(0).randbytes(2000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/0", content)
    source = open_source(path)
    (member,) = read_members(source)
    longer = replace(member, nbytes=member.nbytes + 100, stored_bytes=member.stored_bytes + 40)
    data = MemberData(source, longer)
    for _ in range(10):
        with pytest.raises(ForeignFileError):
            data.read(0, longer.nbytes)
    source.close()
