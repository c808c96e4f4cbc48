"""`Checkpoint.fill`: the data of tensors to memory or to functions, every byte verified."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.container.reader import Checkpoint
from tests.containers import BytesSource

CHUNK = 4 << 20
LARGE = np.random.default_rng(0).integers(0, 256, 2 * CHUNK + 5, np.uint8)
SMALL = np.arange(300, dtype=np.float32)


@pytest.fixture(params=["none", "zstd"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    state = {"net": {"large": LARGE, "small": SMALL}, "other": {"x": SMALL}}
    ckptfmt.save(state, tmp_path / "a", codec=request.param)
    return tmp_path / "a"


class Taker:
    """Puts pieces to their places, from any thread."""

    def __init__(self, nbytes: int) -> None:
        self.data = bytearray(nbytes)
        self.places: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def __call__(self, start: int, piece: memoryview) -> None:
        with self._lock:
            self.data[start : start + len(piece)] = piece
            self.places.append((start, len(piece)))


def test_functions_are_given_every_piece_once(path: Path) -> None:
    large, small, read = Taker(LARGE.nbytes), memoryview(bytearray(SMALL.nbytes)), 0

    def progress(nbytes: int) -> None:
        nonlocal read
        read += nbytes

    with ckptfmt.open(path) as checkpoint:
        assert not checkpoint.fill({"net": {"large": large, "small": small}}, progress=progress)
        assert read == checkpoint["net"].logical_bytes
    assert large.data == LARGE.tobytes()
    assert sorted(large.places) == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 5)]
    assert small == SMALL.tobytes()


def test_functions_are_never_given_a_damaged_piece(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        member = checkpoint["net"].tensor_member
        assert member is not None
        place = member.offset + member.stored_bytes - 1
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with ckptfmt.open(path) as checkpoint:
        last = member.segments[-1].tensor
        assert last is not None
        taker = Taker(checkpoint["net"].tensors[last].nbytes)
        problems = checkpoint.fill({"net": {last: taker}})
    assert [problem.tensor for problem in problems] == [last]
    nbytes = len(taker.data)
    assert sum(length for _, length in taker.places) == nbytes - (nbytes % CHUNK or CHUNK)


def test_only_the_components_that_are_asked_for_are_read(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with ckptfmt.open(path) as checkpoint:
        member = checkpoint["other"].tensor_member
        assert member is not None
        content[member.offset + member.stored_bytes - 1] ^= 1
    path.write_bytes(content)
    with ckptfmt.open(path) as checkpoint:
        assert not checkpoint.fill({"net": {}})
        assert [problem.tensor for problem in checkpoint.fill({"net": {}, "other": {}})] == ["x"]


@pytest.mark.parametrize("cached", [0, 1, CHUNK // 2, CHUNK + (1 << 20) + 3, 1 << 30])
def test_what_is_cached_and_what_is_not_is_read_and_verified_alike(path: Path, cached: int) -> None:
    content = path.read_bytes()
    memory = memoryview(bytearray(LARGE.nbytes))
    opened = Checkpoint(BytesSource(content, cached_bytes=cached))
    assert not opened.fill({"net": {"large": memory}, "other": {}})
    assert memory == LARGE.tobytes()
    assert not opened.verify()
    member = opened["net"].tensor_member
    assert member is not None
    for place in range(member.offset + 1, member.offset + member.stored_bytes, (1 << 20) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        opened = Checkpoint(BytesSource(bytes(damaged), cached_bytes=cached))
        assert len(opened.fill({"net": {"large": memory}})) == 1
        assert len(opened.verify()) == 1


def test_what_is_not_cached_is_read_in_whole_chunks(tmp_path: Path) -> None:
    ckptfmt.save({"net": {"large": LARGE}}, tmp_path / "a")
    source = BytesSource((tmp_path / "a").read_bytes(), cached_bytes=(1 << 20) + 3)
    memory = memoryview(bytearray(LARGE.nbytes))
    opened = Checkpoint(source)
    source.reads.clear()
    assert not opened.fill({"net": {"large": memory}})
    assert memory == LARGE.tobytes()
    assert len(source.reads) <= 5  # the header, three chunks, and one of these in two parts
