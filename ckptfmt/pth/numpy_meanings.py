"""What NumPy's arrays, scalars and dtypes become (spec 11.6), without NumPy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ckptfmt.format.packing import Typed
from ckptfmt.format.trees import NUMPY_ARRAY, NUMPY_SCALAR
from ckptfmt.pth.dtypes import ElementType
from ckptfmt.pth.failures import LegacyFileError
from ckptfmt.pth.globals import canonical
from ckptfmt.pth.nodes import Global, Record, describe
from ckptfmt.pth.storages import MemoryData
from ckptfmt.pth.tensors import Storage, c_strides, view_of
from ckptfmt.pth.values import ANYTHING, STATES, Builder, Meaning

__all__ = ["NUMPY_MEANINGS"]

_CODES = {
    "b1": ElementType("bool", 1, "BOOL"),
    "u1": ElementType("uint8", 1, "U8"),
    "i1": ElementType("int8", 1, "I8"),
    "u2": ElementType("uint16", 2, "U16"),
    "i2": ElementType("int16", 2, "I16"),
    "u4": ElementType("uint32", 4, "U32"),
    "i4": ElementType("int32", 4, "I32"),
    "u8": ElementType("uint64", 8, "U64"),
    "i8": ElementType("int64", 8, "I64"),
    "f2": ElementType("float16", 2, "F16"),
    "f4": ElementType("float32", 4, "F32"),
    "f8": ElementType("float64", 8, "F64"),
    "c8": ElementType("complex64", 8, "C64", word=4),
    "c16": ElementType("complex128", 16, "F64", typed="C128", word=8),
    # Of ml_dtypes, which gives each of its types a class.
    "bfloat16": ElementType("bfloat16", 2, "BF16"),
    "float8_e4m3fn": ElementType("float8_e4m3fn", 1, "F8_E4M3"),
    "float8_e5m2": ElementType("float8_e5m2", 1, "F8_E5M2"),
    "float8_e4m3fnuz": ElementType("float8_e4m3fnuz", 1, "F8_E4M3FNUZ"),
    "float8_e5m2fnuz": ElementType("float8_e5m2fnuz", 1, "F8_E5M2FNUZ"),
    "float8_e8m0fnu": ElementType("float8_e8m0fnu", 1, "F8_E8M0"),
}
_OTHER = re.compile(r"[SUVMm]\d{0,9}")


@dataclass(frozen=True, eq=False)
class _DType:
    """A dtype: what NumPy calls it, without its byte order.

    Attributes:
        code: Kind and bytes of an element such as `f4`, `U12` or `O`; the name of one of ml_dtypes.
        swapped: Whether its numbers are big-endian.
    """

    code: str
    swapped: bool

    def published(self, _: Builder) -> Typed:
        """Return the dtype where it stands alone."""
        return Typed("numpy.dtype", (">" if self.swapped else "") + self.code)


def _dtype(_: Builder, record: Record) -> object:
    """`numpy.dtype("f4", False, True)`, then a state with the byte order."""
    first = record.args[0] if record.args else None
    if isinstance(first, Global):
        code = canonical(first).rpartition(".")[2]
    elif isinstance(first, str):
        code = first
    else:
        raise LegacyFileError(f"a NumPy dtype made of {describe(first)}")
    if code.startswith(("<", ">", "|", "=")):
        code = code[1:]
    if code not in _CODES and code not in ("O", "O8") and not _OTHER.fullmatch(code):
        raise LegacyFileError(f"an array of NumPy dtype {code!a:.40}, which cannot be expressed")
    order = "<"
    for state in record.states:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            order = state[1]
            fields = state[4] if len(state) > 4 else None
            if fields is not None:
                raise LegacyFileError("an array of a NumPy dtype with fields, which cannot be expressed")
    return _DType(code, order == ">")


def _reconstruct(builder: Builder, record: Record) -> object:
    """`_reconstruct(numpy.ndarray, (0,), b"b")`, then a state: version, shape, dtype, Fortran order, data."""
    if not record.states:
        return builder.inert(record)
    match record.states[-1]:
        case (_, shape, dtype, fortran, data) | (shape, dtype, fortran, data):
            return _array(builder, shape, dtype, fortran, data)
    raise LegacyFileError("a NumPy array without shape, dtype and data")


def _from_buffer(builder: Builder, record: Record) -> object:
    """`_frombuffer(data, dtype, shape, "C")`: how protocol 5 writes contiguous arrays."""
    match record.args:
        case (data, dtype, shape, str(order)):
            return _array(builder, shape, dtype, order == "F", data)
    raise LegacyFileError("a NumPy array without shape, dtype and data")


def _array(builder: Builder, shape_node: object, dtype_node: object, fortran: object, data_node: object) -> object:
    dtype = builder.raw(dtype_node)
    shape = builder.raw(shape_node)
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or not all(type(size) is int for size in shape):
        raise LegacyFileError("a NumPy array without shape, dtype and data")
    if dtype.code.startswith("O"):
        builder.notes.inert["numpy.ndarray of objects"] += 1
        return Typed("numpy.objects", {"shape": list(shape), "values": builder.value(data_node)})
    data = builder.raw(data_node)
    if isinstance(data, str):  # a `str` of Python 2, which was taken for UTF-8
        data = data.encode("utf-8", "surrogatepass")
    if not isinstance(data, bytes):
        raise LegacyFileError("a NumPy array whose data are no bytes")
    kind = _CODES.get(dtype.code)
    if kind is None:
        return _unexpressed(builder, dtype, shape, data, fortran=bool(fortran))
    if min(shape, default=0) < 0 or math.prod(shape) * kind.nbytes != len(data):
        raise LegacyFileError(f"a NumPy array of {len(data)} bytes, its shape {list(shape)!s:.80} does not fit them")
    storage = Storage("of an array", MemoryData(data), kind, dtype.swapped)
    strides = c_strides(shape[::-1])[::-1] if fortran else c_strides(shape)
    return Typed(NUMPY_ARRAY, builder.express(view_of(storage, kind, 0, shape, strides)))


def _unexpressed(builder: Builder, dtype: _DType, shape: tuple[int, ...], data: bytes, *, fortran: bool) -> Typed:
    """Return an array of text, times or raw bytes, which no tensor can hold, as inert data."""
    name = (">" if dtype.swapped else "<") + dtype.code
    builder.notes.inert[f"numpy.ndarray of {name}"] += 1
    return Typed("numpy.array", {"dtype": name, "shape": list(shape), "order": "F" if fortran else "C", "data": data})


def _scalar(builder: Builder, record: Record) -> object:
    """`scalar(dtype, data)`."""
    dtype = builder.raw(record.args[0]) if record.args else None
    data = builder.raw(record.args[1]) if len(record.args) > 1 else b""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        if isinstance(dtype, _DType) and dtype.code.startswith("O"):
            return builder.value(record.args[1])
        raise LegacyFileError("a NumPy scalar without dtype and data")
    kind = _CODES.get(dtype.code)
    if kind is None:
        return _unexpressed(builder, dtype, (), data, fortran=False)
    if len(data) != kind.nbytes:
        raise LegacyFileError(f"a NumPy scalar of {len(data)} bytes, its dtype {dtype.code} has {kind.nbytes}")
    if dtype.swapped:
        data = b"".join(data[at : at + kind.word_bytes][::-1] for at in range(0, len(data), kind.word_bytes))
    return Typed(NUMPY_SCALAR, [kind.typed or kind.dtype, data])


def _inert(builder: Builder, record: Record) -> object:
    """A random generator: its state stands in what follows."""
    return builder.inert(record)


NUMPY_MEANINGS: Mapping[str, Meaning] = {
    "numpy.dtype": Meaning(_dtype, STATES),
    "numpy.ndarray": Meaning(_inert, ANYTHING),
    "numpy._core.multiarray._reconstruct": Meaning(_reconstruct, STATES),
    "numpy._core.multiarray.scalar": Meaning(_scalar),
    "numpy._core.numeric._frombuffer": Meaning(_from_buffer),
    "numpy.random.__RandomState_ctor": Meaning(_inert, STATES),
    "numpy.random._pickle.__randomstate_ctor": Meaning(_inert, STATES),
    "numpy.random._pickle.__generator_ctor": Meaning(_inert, STATES),
    "numpy.random._pickle.__bit_generator_ctor": Meaning(_inert, STATES),
}
"""The meanings by the canonical name."""
