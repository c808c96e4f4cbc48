"""Views whose elements lie in another order than they are wanted: value for value, and never much of them at a time."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.pth.data import gathering, tensors
from ckptfmt._core.pth.data.dtypes import TYPES
from ckptfmt._core.pth.data.storages import MemoryData
from ckptfmt._core.pth.data.tensors import Storage, view_of

FLOAT = TYPES["float32"]


class Watched(MemoryData):
    """Bytes that know how much of them was read at most at a time, and how much in all."""

    most = total = 0

    def read(self, start: int, nbytes: int) -> BytesLike:
        assert start >= 0
        assert start + nbytes <= self.nbytes
        self.most, self.total = max(self.most, nbytes), self.total + nbytes
        return super().read(start, nbytes)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "_GATHERED_BYTES", 2048)
    monkeypatch.setattr(tensors, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(gathering, "_MOST_READ_BYTES", 1024)
    monkeypatch.setattr(gathering, "_MOST_BETWEEN_BYTES", 64)


def read(
    data: Watched, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    view = view_of(Storage("0", data, FLOAT), FLOAT, offset, shape, strides)
    chunks = [bytes(chunk) for chunk in view.chunks()]
    assert all(len(chunk) == 1000 for chunk in chunks[:-1])
    return np.frombuffer(b"".join(chunks), np.float32).reshape(shape)


def test_any_view() -> None:
    chance = random.Random(3)
    values = np.arange(40_000, dtype=np.float32)
    for _ in range(400):
        sizes = [chance.choice([1, 2, 3, 7, 20, 50]) for _ in range(chance.randint(1, 4))]
        steps, strides = 1, []
        for size in sizes:
            stride = 0 if chance.random() < 0.1 else steps * chance.choice([1, 1, 2, 5])
            strides.append(stride)
            steps = max(steps, stride * size)
        order = chance.sample(range(len(sizes)), len(sizes))
        shape, strides_ = tuple(sizes[axis] for axis in order), tuple(strides[axis] for axis in order)
        offset = chance.randint(0, 50)
        if offset + sum((size - 1) * stride for size, stride in zip(shape, strides_, strict=True)) >= values.size:
            continue
        data = Watched(values.tobytes())
        expected = np.lib.stride_tricks.as_strided(values[offset:], shape, [4 * stride for stride in strides_])
        assert np.array_equal(read(data, shape, strides_, offset), expected), (shape, strides_)
        assert data.most <= 4096


@pytest.mark.parametrize("shape", [(200, 100), (20, 1500), (1500, 20), (6, 50, 70)])
def test_a_transposed_view_is_read_in_blocks(shape: tuple[int, ...]) -> None:
    values = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    data = Watched(values.tobytes())
    strides = tuple(stride // 4 for stride in values.T.strides)
    assert np.array_equal(read(data, values.T.shape, strides), values.T)
    assert data.most <= 2048
    assert data.total <= values.nbytes * (1 + values.nbytes // 4096)  # a block at a time, at worst from all
