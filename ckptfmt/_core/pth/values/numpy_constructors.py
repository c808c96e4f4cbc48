"""What NumPy's arrays, scalars and dtypes become (spec 11.6), without NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.trees import NUMPY_ARRAY, NUMPY_SCALAR
from ckptfmt._core.pth.data.storages import MemoryData
from ckptfmt._core.pth.data.tensors import Storage, c_strides, view_of
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import Global, Record
from ckptfmt._core.pth.values.builder import ANYTHING, STATES, Builder, Constructor
from ckptfmt._core.pth.values.numpy_dtypes import ArrayType, array_type, text_type
from ckptfmt.errors import ForeignFileError

__all__ = ["NUMPY_CONSTRUCTORS"]


def _reconstruct(builder: Builder, record: Record) -> object:
    """`_reconstruct(numpy.ndarray, (0,), b"b")`, then a state: version, shape, dtype, Fortran order, data."""
    if not record.states:
        return builder.inert(record)
    match record.states[-1]:
        case (_, shape, dtype, fortran, data) | (shape, dtype, fortran, data):
            made = _array(builder, shape, dtype, fortran, data)
        case _:
            raise ForeignFileError("a NumPy array without shape, dtype and data")
    if record.args and isinstance(record.args[0], Global) and canonical(record.args[0]) != "numpy.ndarray":
        builder.notes.drop(f"the class {record.args[0]} of an array", "its values are kept as a plain array")
    return made


def _from_buffer(builder: Builder, record: Record) -> object:
    """`_frombuffer(data, dtype, shape, "C")`: how protocol 5 writes contiguous arrays."""
    match record.args:
        case (data, dtype, shape, str(order)):
            return _array(builder, shape, dtype, order == "F", data)
    raise ForeignFileError("a NumPy array without shape, dtype and data")


def _array(builder: Builder, shape_node: object, dtype_node: object, fortran: object, data_node: object) -> object:
    dtype = builder.raw(dtype_node)
    shape = builder.raw(shape_node)
    if not isinstance(dtype, ArrayType) or not isinstance(shape, tuple) or not all(type(size) is int for size in shape):
        raise ForeignFileError("a NumPy array without shape, dtype and data")
    if dtype.objects or isinstance(data_node, list):
        builder.notes.inert["numpy.ndarray of objects"] += 1
        facts = {"shape": list(shape), "values": builder.value(data_node)}
        return Typed("numpy.objects", facts if dtype.structure is None else {"dtype": dtype.structure, **facts})
    data = _bytes(builder, data_node)
    nbytes = dtype.nbytes
    if nbytes is not None and (min(shape, default=0) < 0 or math.prod(shape) * nbytes != len(data)):
        raise ForeignFileError(f"a NumPy array of {len(data)} bytes, its shape {list(shape)!s:.80} does not fit them")
    kind = dtype.element
    if kind is None:
        return _unexpressed(builder, dtype, shape, data, fortran=bool(fortran))
    storage = Storage("of an array", MemoryData(data), kind, dtype.swapped)
    strides = c_strides(shape[::-1])[::-1] if fortran else c_strides(shape)
    return Typed(NUMPY_ARRAY, builder.express(view_of(storage, kind, 0, shape, strides)))


def _bytes(builder: Builder, node: object) -> bytes:
    data = builder.raw(node)
    if isinstance(data, str):  # a `str` of Python 2, which was taken for UTF-8
        data = data.encode("utf-8", "surrogatepass")
    if not isinstance(data, bytes):
        raise ForeignFileError("a NumPy array or scalar whose data are no bytes")
    return data


def _unexpressed(builder: Builder, dtype: ArrayType, shape: tuple[int, ...], data: bytes, *, fortran: bool) -> Typed:
    """Return an array of text, times, records or long doubles, which no tensor can hold, as inert data."""
    what = "records" if dtype.structure is not None else dtype.description
    builder.notes.inert[f"numpy.ndarray of {what}"] += 1
    order = "F" if fortran else "C"
    return Typed("numpy.array", {"dtype": dtype.description, "shape": list(shape), "order": order, "data": data})


def _scalar(builder: Builder, record: Record) -> object:
    """`scalar(dtype, data)`."""
    dtype = builder.raw(record.args[0]) if record.args else None
    if not isinstance(dtype, ArrayType):
        raise ForeignFileError("a NumPy scalar without dtype and data")
    if dtype.objects and len(record.args) > 1:
        return builder.value(record.args[1])
    data = _bytes(builder, record.args[1]) if len(record.args) > 1 else b""
    if dtype.nbytes is not None and len(data) != dtype.nbytes:
        raise ForeignFileError(f"a NumPy scalar of {len(data)} bytes, its dtype {dtype.code} has {dtype.nbytes}")
    kind = dtype.element
    if kind is None:
        return _unexpressed(builder, dtype, (), data, fortran=False)
    if dtype.swapped:
        data = b"".join(data[at : at + kind.word_bytes][::-1] for at in range(0, len(data), kind.word_bytes))
    return Typed(NUMPY_SCALAR, [kind.typed or kind.dtype, data])


def _masked(builder: Builder, record: Record) -> object:
    """`_mareconstruct(MaskedArray, ndarray, (0,), "b")`, then a state: as of an array, then the mask and a value."""
    match record.states:
        case [(_, shape, dtype, fortran, data, mask, fill)]:
            values = _array(builder, shape, dtype, fortran, data)
        case _:
            raise ForeignFileError("a masked array without values and mask")
    made = builder.raw(dtype)
    masked: object = _bytes(builder, mask)
    if isinstance(made, ArrayType) and made.structure is None:
        masked = _array(builder, shape, _BOOLEAN, fortran, masked)
    builder.notes.inert["numpy.ma.MaskedArray"] += 1
    return Typed("numpy.ma.MaskedArray", {"data": values, "mask": masked, "fill_value": builder.value(fill)})


_BOOLEAN = Record(Global("numpy", "dtype"), ("b1", False, True))


def _seed(builder: Builder, record: Record) -> object:
    """`__pyx_unpickle_SeedSequence(SeedSequence, checksum, None)`, then a state."""
    match record.args:
        case (Global() as cls, *_):
            return builder.inert(replace(record, callee=cls, args=()))
    raise ForeignFileError("a sequence of seeds without a class")


def _inert(builder: Builder, record: Record) -> object:
    """A random generator: its state stands in what follows."""
    return builder.inert(record)


NUMPY_CONSTRUCTORS: Mapping[str, Constructor] = {
    "numpy.dtype": Constructor(array_type, STATES),
    "numpy._core._internal._convert_to_stringdtype_kwargs": Constructor(text_type),
    "numpy.ndarray": Constructor(_inert, ANYTHING),
    "numpy._core.multiarray._reconstruct": Constructor(_reconstruct, STATES),
    "numpy._core.multiarray.scalar": Constructor(_scalar),
    "numpy._core.numeric._frombuffer": Constructor(_from_buffer),
    "numpy.ma._mareconstruct": Constructor(_masked, STATES),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": Constructor(_seed, STATES),
    "numpy.random.__RandomState_ctor": Constructor(_inert, STATES),
    "numpy.random._pickle.__randomstate_ctor": Constructor(_inert, STATES),
    "numpy.random._pickle.__generator_ctor": Constructor(_inert, STATES),
    "numpy.random._pickle.__bit_generator_ctor": Constructor(_inert, STATES),
}
"""The constructors by canonical name."""
