"""The table of element types says what the specification, NumPy, ml_dtypes, PyTorch and safetensors say."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from ckptfmt._core.format.dtypes import COMPLEX_PARTS, DTYPES, ELEMENTS, DType, kind_of

SPEC = Path(__file__).parents[2] / "spec" / "ckptfmt-1.md"
_NONE = "\N{EM DASH}"


def names(cell: str) -> list[str]:
    return re.findall(r"`([A-Za-z0-9_]+)`", cell)


def table_2() -> dict[str, tuple[int, int, str | None, str | None]]:
    """Return the table of the specification: bits, planes, name in NumPy or ml_dtypes, name in PyTorch."""
    rows = {}
    for line in SPEC.read_text(encoding="utf-8").partition("Table 2, the dtypes:")[2].splitlines()[4:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        numpy, pytorch = (names(cells[4]), names(cells[5]))
        for number, name in enumerate(names(cells[0])):
            rows[name] = (
                int(cells[1]),
                int(cells[2]),
                None if cells[4] == _NONE else numpy[number],
                None if cells[5] == _NONE else pytorch[number],
            )
    return rows


def test_the_table_is_that_of_the_specification() -> None:
    assert table_2() == {
        name: (dtype.bits, dtype.split.planes, dtype.numpy, dtype.torch) for name, dtype in DTYPES.items()
    }


@pytest.mark.parametrize("dtype", [dtype for dtype in ELEMENTS.values() if dtype.numpy], ids=lambda dtype: dtype.name)
def test_numpy_agrees(dtype: DType) -> None:
    assert dtype.numpy is not None
    made = np.dtype(dtype.numpy if dtype.code is not None else getattr(ml_dtypes, dtype.numpy))
    assert made.itemsize * 8 == dtype.bits
    if dtype.code is not None:
        assert made == np.dtype(dtype.code)
        assert made.kind == dtype.kind
        number = made.type(1)
        assert dtype.number(number.tobytes()) == number


@pytest.mark.parametrize("dtype", [dtype for dtype in ELEMENTS.values() if dtype.torch], ids=lambda dtype: dtype.name)
def test_torch_agrees(dtype: DType) -> None:
    assert dtype.torch is not None
    if not hasattr(torch, dtype.torch):
        pytest.skip("this PyTorch does not have it")
    made = getattr(torch, dtype.torch)
    assert made.itemsize * 8 == dtype.bits * dtype.packed
    assert made.is_floating_point == (dtype.kind == "f")
    assert made.is_complex == (dtype.kind == "c")
    assert dtype.word_bytes == (made.itemsize // 2 if made.is_complex else dtype.bits // 8)


def test_safetensors_has_the_same_names() -> None:
    theirs = safetensors.torch._TYPES
    ours = {name: getattr(torch, dtype.torch) for name, dtype in DTYPES.items() if dtype.torch and name in theirs}
    assert ours == {name: theirs[name] for name in ours}
    assert set(theirs) <= set(DTYPES)


def test_the_parts_of_complex_types_are_dtypes_of_half_their_size() -> None:
    for name, part in COMPLEX_PARTS.items():
        assert name not in DTYPES
        assert 2 * DTYPES[part].bits == ELEMENTS[name].bits


def test_no_kind_of_what_is_not_in_the_table() -> None:
    assert [kind_of(name) for name in ("BF16", "BOOL", "C128", "object")] == ["f", "b", "c", None]
