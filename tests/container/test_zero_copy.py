"""Tensors of an open checkpoint as views of the file: verified, read-only, and valid for as long as they are held."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt import IntegrityError, StorageError

WEIGHTS = np.arange(4096, dtype=np.float32)
MAPS = pytest.mark.skipif(os.name == "nt", reason="a file that is mapped cannot be replaced there")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    odd = np.arange(3, dtype=np.uint8)  # what comes behind it lies at no multiple of its size
    ckptfmt.save({"net": {"w": WEIGHTS, "odd": odd, "x": WEIGHTS[:3] + 1, "none": WEIGHTS[:0]}}, tmp_path / "a")
    return tmp_path / "a"


@MAPS
def test_a_tensor_is_a_view_that_nobody_can_write_to(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        first, again = checkpoint["net"]["w"], checkpoint["net"]["w"]
    assert np.array_equal(first, WEIGHTS)
    assert np.shares_memory(first, again)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


@MAPS
def test_a_view_outlives_the_checkpoint_and_its_file(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        weights = checkpoint["net"]["w"]
    ckptfmt.save({"net": {"w": WEIGHTS + 1}}, path)
    assert np.array_equal(weights, WEIGHTS)
    path.unlink()
    assert np.array_equal(weights, WEIGHTS)


def test_what_cannot_be_a_view_is_a_copy(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        assert np.array_equal(checkpoint["net"]["x"], WEIGHTS[:3] + 1)
        assert checkpoint["net"]["x"].flags.aligned
        assert checkpoint["net"]["none"].shape == (0,)
    ckptfmt.save({"net": {"w": WEIGHTS}}, path, codec="zstd")
    with ckptfmt.open(path) as checkpoint:
        assert np.array_equal(checkpoint["net"]["w"], WEIGHTS)


def test_a_changed_byte_is_never_seen(path: Path) -> None:
    content = path.read_bytes()
    place = content.index(WEIGHTS.tobytes()) + 40
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    with ckptfmt.open(path) as checkpoint, pytest.raises(IntegrityError) as caught:
        checkpoint["net"]["w"]
    assert caught.value.problems[0].tensor == "w"


def test_a_file_that_shrinks_is_an_error_and_no_crash(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        os.truncate(path, 5000)
        with pytest.raises(StorageError, match=path.name):
            checkpoint["net"]["w"]


@MAPS
def test_a_file_that_shrinks_after_it_was_mapped_is_an_error_and_no_crash(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        checkpoint["net"]["w"]
        os.truncate(path, 5000)
        with pytest.raises(StorageError, match=path.name):
            checkpoint["net"]["w"]
