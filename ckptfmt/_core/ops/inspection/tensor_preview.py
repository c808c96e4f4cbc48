"""The values of one tensor as NumPy shows them: all of a small one, the corners of a large one."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.index import ROOT
from ckptfmt._core.interop.base import TensorFile, TensorInfo
from ckptfmt._core.ops.inspection.arrays import array_of, has_numbers
from ckptfmt._core.ops.report_json import float_json
from ckptfmt.errors import CkptfmtError, NotFoundError

__all__ = ["TensorView", "find_tensor", "view_tensor"]

_ALL_ELEMENTS = 1000  # NumPy's own threshold for showing all
_EDGE = 3  # and for how many at each end it shows beyond
_MOST_CORNERS = 100_000
_CLOSE = 5


@dataclass(frozen=True)
class TensorView:
    """A tensor with some or all of its values.

    Attributes:
        tensor: The tensor.
        corners: Its values, of the shape of the tensor; where a dimension is longer than 6 and the tensor has more
            than 1,000 elements, its first 3, one placeholder, and its last 3.
        whole: Whether these are all values.
    """

    tensor: TensorInfo
    corners: np.ndarray[Any, Any]
    whole: bool

    def text(self, width: int) -> str:
        """Return the values as NumPy writes them, in lines of at most `width` columns where that is possible."""
        threshold = self.corners.size + 1 if self.whole else 0
        return np.array2string(self.corners, max_line_width=width, threshold=threshold, edgeitems=_EDGE)

    def to_json(self) -> dict[str, object]:
        """Return it in JSON.

        Keys: those of `TensorInfo.to_json`, and `values`: the elements in C order as an array (numbers, see
        `float_json`; complex ones as `[real, imaginary]`), null if there are more than 1,000.
        """
        values = [_element_json(value) for value in self.corners.ravel().tolist()] if self.whole else None
        return {**self.tensor.to_json(), "values": values}


def find_tensor(tensors: Iterable[TensorInfo], name: str) -> TensorInfo:
    """Return the tensor with a name, which may begin with the name of its component.

    Raises:
        NotFoundError: There is no such tensor, or several components have one. The message lists close names.
    """
    every = list(tensors)
    full = [tensor.name if tensor.component == ROOT else f"{tensor.component}.{tensor.name}" for tensor in every]
    for names in (full, [tensor.name for tensor in every]):
        found = [number for number, candidate in enumerate(names) if candidate == name]
        if len(found) == 1:
            return every[found[0]]
        if found:
            several = ", ".join(full[number] for number in found[:_CLOSE])
            raise NotFoundError(f"several components have a tensor {name!r}; choose from: {several}")
    if close := difflib.get_close_matches(name, full, n=_CLOSE, cutoff=0.5):
        hint = f"similar names: {', '.join(close)}"
    else:
        hint = f"the first names are {', '.join(full[:_CLOSE])}" if full else "the file has no tensors"
    raise NotFoundError(f"no tensor {name!r}; {hint}")


def view_tensor(file: TensorFile, tensor: TensorInfo) -> TensorView:
    """Return a tensor with its values. Of a large tensor, only the chunks with the values to show are read.

    Raises:
        CkptfmtError: The tensor cannot be read, is damaged, or has elements that are not numbers.
    """
    if not has_numbers(tensor.dtype):
        raise CkptfmtError(f"{file.path}: tensor {tensor.name!r} holds no numbers; it is of dtype {tensor.dtype}")
    whole = tensor.elements <= _ALL_ELEMENTS
    shape = tensor.shape
    if not whole and math.prod(min(size, 2 * _EDGE + 1) for size in shape) > _MOST_CORNERS:
        shape = (tensor.elements,)  # too many dimensions for corners
    places = [range(size) if whole or size <= 2 * _EDGE else _ends(size) for size in shape]
    values = _gather(file.components[tensor.component].tensors[tensor.name], _flat(places, shape))
    return TensorView(tensor, values.reshape([len(kept) for kept in places]), whole)


def _ends(size: int) -> list[int]:
    return [*range(_EDGE), _EDGE, *range(size - _EDGE, size)]


def _flat(places: Sequence[Sequence[int]], shape: Sequence[int]) -> list[int]:
    """Return the positions in C order of all combinations of places, ascending."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return [sum(map(int.__mul__, index, strides)) for index in itertools.product(*places)]


def _gather(tensor: TensorSource, positions: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the elements at ascending positions."""
    found = []
    start = taken = 0
    for number, chunk in enumerate(tensor.chunks()):
        nbytes = min(CHUNK_BYTES, tensor.nbytes - number * CHUNK_BYTES)
        end = start + nbytes * tensor.elements // tensor.nbytes
        here = taken
        while taken < len(positions) and positions[taken] < end:
            taken += 1
        if taken > here:
            array = array_of(chunk(), tensor.dtype)
            found.append(array[[position - start for position in positions[here:taken]]])
        start = end
    return np.concatenate(found) if found else array_of(b"", tensor.dtype)


def _element_json(value: Any) -> object:
    if isinstance(value, complex):
        return [float_json(value.real), float_json(value.imag)]
    return float_json(value) if isinstance(value, float) else value
