"""Element types: the dtypes of the format (spec 9, table 2), and their names in NumPy, ml_dtypes and PyTorch.

This is the only table. It holds names and numbers and needs no framework: where an object of NumPy or PyTorch is
wanted, it is looked up there by the name that this table has.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.planes import WHOLE, Split

__all__ = ["BOOL", "COMPLEX_PARTS", "DTYPES", "ELEMENTS", "DType", "kind_of"]

BOOL = "BOOL"
"""The dtype of which a reader may have to change bytes (9.8)."""


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    Attributes:
        name: Its name in the specification, and in safetensors.
        kind: `b` truth value, `u` and `i` integer, `f` float, `c` complex: NumPy's letters.
        bits: Bits of one element.
        numpy: Its name in NumPy, or in ml_dtypes if `layout` is None. None: neither has it.
        torch: Its name in PyTorch, without `torch.`. None: PyTorch does not have it.
        layout: Its format for `struct`, without the byte order. None: `struct` does not have it, nor does NumPy itself.
        split: How its chunks are split under codec `zstd` (8.3).
        packed: How many elements one element of PyTorch holds, side by side in the last dimension.
        parts: The dtype of real and imaginary parts, if tensors of this type are stored as those (11.6).
    """

    name: str
    kind: Literal["b", "u", "i", "f", "c"]
    bits: int
    numpy: str | None = None
    torch: str | None = None
    layout: str | None = None
    split: Split = WHOLE
    packed: int = 1
    parts: str | None = None

    @property
    def code(self) -> str | None:
        """NumPy's code without the byte order, such as `f4`; None if NumPy itself does not have the type."""
        return None if self.layout is None else f"{self.kind}{self.bits // 8}"

    @property
    def word_bytes(self) -> int:
        """Bytes of one number, which is what byte order applies to: half of a complex element."""
        return self.bits // (16 if self.kind == "c" else 8)

    def number(self, data: BytesLike) -> Any:
        """Return the number that these bytes are, as Python has it. Only for types with a `layout`."""
        numbers = struct.unpack(f"<{self.layout}", data)
        return complex(*numbers) if self.kind == "c" else numbers[0]


_FLOAT_16, _FLOAT_32, _FLOAT_64 = Split(2, 5), Split(4, 8), Split(8, 11)

DTYPES: Mapping[str, DType] = {
    dtype.name: dtype
    for dtype in (
        DType(BOOL, "b", 8, "bool", "bool", "?"),
        DType("U8", "u", 8, "uint8", "uint8", "B"),
        DType("I8", "i", 8, "int8", "int8", "b"),
        DType("U16", "u", 16, "uint16", "uint16", "H", Split(2)),
        DType("I16", "i", 16, "int16", "int16", "h", Split(2)),
        DType("U32", "u", 32, "uint32", "uint32", "I", Split(4)),
        DType("I32", "i", 32, "int32", "int32", "i", Split(4)),
        DType("U64", "u", 64, "uint64", "uint64", "Q", Split(8)),
        DType("I64", "i", 64, "int64", "int64", "q", Split(8)),
        DType("F16", "f", 16, "float16", "float16", "e", _FLOAT_16),
        DType("BF16", "f", 16, "bfloat16", "bfloat16", split=Split(2, 8)),
        DType("F32", "f", 32, "float32", "float32", "f", _FLOAT_32),
        DType("F64", "f", 64, "float64", "float64", "d", _FLOAT_64),
        DType("C64", "c", 64, "complex64", "complex64", "2f", _FLOAT_32),
        DType("F8_E4M3", "f", 8, "float8_e4m3fn", "float8_e4m3fn"),
        DType("F8_E5M2", "f", 8, "float8_e5m2", "float8_e5m2"),
        DType("F8_E4M3FNUZ", "f", 8, "float8_e4m3fnuz", "float8_e4m3fnuz"),
        DType("F8_E5M2FNUZ", "f", 8, "float8_e5m2fnuz", "float8_e5m2fnuz"),
        DType("F8_E8M0", "f", 8, "float8_e8m0fnu", "float8_e8m0fnu"),
        DType("F6_E2M3", "f", 6),
        DType("F6_E3M2", "f", 6),
        DType("F4", "f", 4, torch="float4_e2m1fn_x2", packed=2),
    )
}
"""The dtypes that a tensor in a file can have (9, table 2), by name."""

_COMPLEX = (
    DType("C128", "c", 128, "complex128", "complex128", "2d", parts="F64"),
    DType("C32", "c", 32, torch="complex32", parts="F16"),
)

ELEMENTS: Mapping[str, DType] = {**DTYPES, **{dtype.name: dtype for dtype in _COMPLEX}}
"""All element types by name: the dtypes, and the complex types that are stored as their parts."""

COMPLEX_PARTS: Mapping[str, str] = {dtype.name: dtype.parts for dtype in _COMPLEX if dtype.parts is not None}
"""The dtype of the tensor of real and imaginary parts for each complex type that is stored as those (11.6)."""


def kind_of(name: str) -> str | None:
    """Return the kind of an element type (see `DType.kind`); None if no element type has this name."""
    element = ELEMENTS.get(name)
    return None if element is None else element.kind
