"""Whatever goes wrong among the threads of a save: no file is published that lacks a byte or has one twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.container import writer
from ckptfmt._core.storage.local.publication import atomic_file as publishing
from ckptfmt._core.storage.local.publication import direct_io as placing
from ckptfmt._core.storage.local.publication.direct_io import Way
from ckptfmt.errors import StorageError

STATE = {"net": {f"p{number}": np.arange(700_000 + 977 * number, dtype=np.float32) for number in range(4)}, "step": 3}


@pytest.fixture(params=Way, ids=lambda way: way.value)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Write in one of the ways."""
    way: Way = request.param
    monkeypatch.setattr(publishing, "_PAST_THE_CACHE", (way,))
    return way


def test_each_way_of_writing_is_tried_here(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[Way] = []
    finish = placing.PlacedWriter.finish

    def note(self: placing.PlacedWriter, written_bytes: int | None = None) -> None:
        ways.append(self.way)
        finish(self, written_bytes)

    monkeypatch.setattr(placing.PlacedWriter, "finish", note)
    ckptfmt.save(STATE, tmp_path / "a.ckptfmt")
    if ways != [way]:
        pytest.skip(f"no {way.value} writes here")


@pytest.mark.usefixtures("way")
def test_a_job_that_writes_twice_fails_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save(STATE, path, step=1)
    before = path.read_bytes()
    hash_and_write = writer._hash_and_write

    def twice(sink: writer.Sink, offset: int, batch: writer._Batch) -> bytes:
        hash_and_write(sink, offset, batch)
        return hash_and_write(sink, offset, batch)

    monkeypatch.setattr(writer, "_hash_and_write", twice)
    with pytest.raises(StorageError, match=path.name):
        ckptfmt.save(STATE, path, step=2)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.ckptfmt"]


@pytest.mark.usefixtures("way")
def test_a_job_that_writes_nothing_fails_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hash_and_write = writer._hash_and_write

    class Nowhere:
        def write_at(self, offset: int, buffer: object, /) -> None:
            """Forget it."""

    def sometimes(sink: writer.Sink, offset: int, batch: writer._Batch) -> bytes:
        return hash_and_write(sink if offset < 3_000_000 else Nowhere(), offset, batch)

    monkeypatch.setattr(writer, "_hash_and_write", sometimes)
    with pytest.raises(StorageError, match=r"a\.ckptfmt"):
        ckptfmt.save(STATE, tmp_path / "a.ckptfmt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.usefixtures("way")
def test_a_job_without_memory_fails_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    jobs: list[object] = []

    name = "_hash_and_write" if codec == "none" else "encode_chunk"
    whole = getattr(writer, name)

    def refuse(*arguments: object) -> object:
        jobs.append(arguments)
        if len(jobs) > 2:
            raise MemoryError
        return whole(*arguments)

    monkeypatch.setattr(writer, name, refuse)
    with pytest.raises(MemoryError):
        ckptfmt.save(STATE, tmp_path / "a.ckptfmt", codec=codec)
    assert list(tmp_path.iterdir()) == []
