"""NumPy's adapter does what every adapter has to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ckptfmt._core.container.numpy_adapter import NumpyAdapter
from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt.testing.adapters import AdapterTests

Array = np.ndarray[Any, np.dtype[Any]]


class Subclass(np.ndarray[Any, np.dtype[Any]]):
    """An array that may be more than its values."""


class TestNumpyAdapter(AdapterTests):
    dtypes = tuple(name for name in DTYPES if name not in ("F4", "F6_E2M3", "F6_E3M2"))

    @pytest.fixture
    def adapter(self) -> NumpyAdapter:
        return NumpyAdapter()

    def layouts(self, tensor: Array) -> dict[str, Array]:
        found = {}
        if tensor.ndim:
            found["Fortran"] = np.asfortranarray(tensor.copy())
            found["every other"] = np.repeat(tensor, 2, axis=0)[::2]
            found["backwards"] = tensor[::-1].copy()[::-1]
            if tensor.shape[0]:
                found["unaligned"] = unaligned(tensor)
        if tensor.ndim > 1:
            found["transposed"] = tensor.T.copy().T
        if tensor.dtype.kind in "biufc" and tensor.dtype.itemsize > 1:
            found["big-endian"] = tensor.astype(tensor.dtype.newbyteorder(">"))
        return found

    def same_tensors(self, tensor: Array) -> dict[str, Array]:
        return {"a view": tensor.view(), "everything": tensor[...]}

    def views(self, square: Array) -> dict[str, Array]:
        other = np.uint8 if square.dtype.itemsize == 1 and square.dtype != np.uint8 else np.dtype(np.int8)
        found = {
            "rows": square[:2],
            "transposed": square.T,
            "flat": square.reshape(-1),
            "backwards": square[::-1, ::-1],
        }
        return found if square.dtype == other else {**found, "bits": square.view(other)}

    def values(self) -> dict[str, Any]:
        return {
            "float32": np.float32(1.5),
            "int64": np.int64(-3),
            "bool": np.bool_(True),
            "complex128": np.complex128(1 - 2j),
            "big-endian": np.array(7, ">i4")[()],
        }

    def refused(self) -> dict[str, Any]:
        return {
            "objects": np.array([object()]),
            "strings": np.array(["a"]),
            "dates": np.array(["2026-01-01"], "datetime64[D]"),
            "records": np.zeros(2, [("a", "i4")]),
            "a subclass": np.zeros(2).view(Subclass),
            "masked": np.ma.masked_array([1, 2], [True, False]),
            "longdouble": np.zeros(2, np.longdouble),
        }


def unaligned(tensor: Array) -> Array:
    memory = np.zeros(tensor.nbytes + 1, np.uint8)[1:]
    array = memory.view(tensor.dtype).reshape(tensor.shape)
    array[...] = tensor
    return array
