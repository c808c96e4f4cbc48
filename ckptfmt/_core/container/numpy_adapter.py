"""The NumPy adapter: NumPy's arrays and scalars, and every array on the CPU that speaks DLPack or buffers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ckptfmt._core.container.adapter_set import AdapterSet
from ckptfmt._core.container.adapters import TensorLeaf
from ckptfmt._core.format.dtypes import COMPLEX_PARTS, ELEMENTS
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.trees import NUMPY_ARRAY, NUMPY_SCALAR
from ckptfmt._escaping import describe_error
from ckptfmt.errors import FormatError, Problem, StateError, error_for

if TYPE_CHECKING:
    import numpy as np

_NAMES = {element.numpy: element.name for element in ELEMENTS.values() if element.numpy is not None}


class NumpyAdapter:
    """NumPy's arrays and scalars, and any array on the CPU that speaks the buffer protocol or DLPack."""

    @property
    def marker(self) -> str:
        """See `container.adapters.Encoder.marker`."""
        return NUMPY_ARRAY

    def encode(self, value: object, path: str) -> object:
        """See `container.adapters.Encoder.encode`."""
        import numpy as np

        if isinstance(value, np.generic):
            return _encode_scalar(value, path)
        if type(value) in (np.ndarray, np.memmap):
            return Typed(NUMPY_ARRAY, _leaf(value, path))  # type: ignore[arg-type]  # one of the two
        if isinstance(value, np.ndarray):
            raise StateError(path, f"{type(value)} is more than its values", "save np.asarray(...) of it")
        if isinstance(value, bytes | bytearray) or not _is_array(value):
            return NotImplemented
        return _leaf(_as_numpy(value, path), path)

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        """See `container.adapters.Adapter.empty`.

        Raises:
            UnsupportedVersionError: NumPy has no such dtype (4- and 6-bit floats).
            FormatError: NumPy has no array of such a shape (an empty one with huge dimensions).
        """
        import numpy as np

        try:
            array = np.empty(shape, numpy_dtype(dtype))
        except ValueError as error:
            if isinstance(error, FormatError):
                raise
            raise error_for(Problem("tensor-shape", f"NumPy cannot make an array of its shape: {error}")) from error
        return array, _bytes_of(array)

    def view(self, dtype: str, shape: tuple[int, ...], memory: memoryview) -> Any | None:
        """See `container.adapters.Adapter.view`; None also for memory that does not suit the elements."""
        import numpy as np

        array = np.frombuffer(memory, numpy_dtype(dtype)).reshape(shape)
        return array if array.flags.aligned else None

    def decode(self, typed: Typed) -> object:
        """See `container.adapters.Adapter.decode`."""
        import numpy as np

        if typed.name == "C128":
            return typed.value.view(np.complex128).reshape(typed.value.shape[:-1])
        if typed.name == NUMPY_SCALAR:
            name, data = typed.value
            return np.frombuffer(data, numpy_dtype(name))[0]
        return typed


NUMPY_ADAPTERS = AdapterSet(NumpyAdapter())
"""For states of NumPy's arrays, and of arrays that NumPy can take."""


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype of NumPy, or else of ml_dtypes, for the name of an element type (see `format.dtypes`).

    Raises:
        UnsupportedVersionError: Neither has one (4- and 6-bit floats).
    """
    import numpy as np

    element = ELEMENTS.get(name)
    if element is None or element.numpy is None:
        message = f"NumPy has no dtype for {name}; read its bytes with Component.read_bytes"
        raise error_for(Problem("tensor-dtype", message))
    if element.code is not None:
        native: np.dtype[Any] = np.dtype(f"<{element.code}")
        return native
    import ml_dtypes

    extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, element.numpy))
    return extended


def _dtype_name(dtype: np.dtype[Any], path: str) -> str:
    name = _NAMES.get(dtype.name)
    if name is None:
        raise StateError(path, f"an array of dtype {dtype} cannot be expressed", "convert it to a numeric dtype")
    return name


def _leaf(array: np.ndarray[Any, Any], path: str) -> object:
    """Return the leaf of an array; a complex128 array is typed `C128` of one (11.6)."""
    name = _dtype_name(array.dtype, path)
    if name in COMPLEX_PARTS:
        return Typed(name, _NumpyLeaf(COMPLEX_PARTS[name], (*array.shape, 2), array))
    return _NumpyLeaf(name, array.shape, array)


@dataclass(slots=True, eq=False)
class _NumpyLeaf(TensorLeaf):
    """An array of NumPy."""

    array: np.ndarray[Any, Any]

    @property
    def alias(self) -> Hashable:
        """See `TensorLeaf.alias`."""
        array = self.array
        if not array.size:
            return id(array)
        return array.__array_interface__["data"][0], array.dtype.str, self.dtype, array.shape, array.strides

    def read(self) -> memoryview:
        """See `TensorLeaf.read`."""
        import numpy as np

        return _bytes_of(np.ascontiguousarray(self.array, self.array.dtype.newbyteorder("<")))


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """Return the memory of a C-contiguous array as a flat view of bytes."""
    import numpy as np

    return array.reshape(-1).view(np.uint8).data


def _encode_scalar(value: np.generic, path: str) -> Typed:
    import numpy as np

    array = np.asarray(value)
    name = _dtype_name(array.dtype, path)
    return Typed(NUMPY_SCALAR, [name, array.astype(array.dtype.newbyteorder("<")).tobytes()])


def _is_array(value: object) -> bool:
    if hasattr(value, "__dlpack__"):
        return True
    try:
        memoryview(value)  # type: ignore[arg-type]  # this asks whether it is one
    except TypeError:
        return False
    return True


def _as_numpy(value: Any, path: str) -> np.ndarray[Any, Any]:
    """Return an array that speaks DLPack or the buffer protocol as NumPy's, without a copy if possible."""
    import numpy as np

    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        # An `__array__` beside DLPack knows dtypes that DLPack in NumPy does not, such as bfloat16.
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise StateError(
            path, f"{type(value)} does not give its values: {describe_error(error)}", "copy it to the CPU"
        ) from error
