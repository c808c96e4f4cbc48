"""What PyTorch calls its element types and storages, and how their elements are expressed (spec 9, 11.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["STORAGES", "TYPES", "ElementType"]


@dataclass(frozen=True, slots=True)
class ElementType:
    """An element type of PyTorch.

    Attributes:
        name: What PyTorch calls it, without `torch.`.
        nbytes: Bytes of one element.
        dtype: Name of the spec's section 9, of the whole element or of the parts of a complex one; None: it has none.
        typed: `C128` or `C32`, if it is one of those and expressed by its parts (11.6).
        word: Bytes of what stands in one byte order: half an element, if that is complex.
        quantized: Whether its elements are quantized numbers, and `dtype` that of the stored integers.
        packed: How many numbers one element holds, side by side in the last dimension.
    """

    name: str
    nbytes: int
    dtype: str | None
    typed: str | None = None
    word: int = 0
    quantized: bool = False
    packed: int = 1

    @property
    def word_bytes(self) -> int:
        """Bytes of what stands in one byte order."""
        return self.word or self.nbytes


_PLAIN = (
    *(("bool", 1, "BOOL"), ("uint8", 1, "U8"), ("int8", 1, "I8"), ("uint16", 2, "U16"), ("int16", 2, "I16")),
    *(("uint32", 4, "U32"), ("int32", 4, "I32"), ("uint64", 8, "U64"), ("int64", 8, "I64")),
    *(("float16", 2, "F16"), ("bfloat16", 2, "BF16"), ("float32", 4, "F32"), ("float64", 8, "F64")),
    *(("float8_e4m3fn", 1, "F8_E4M3"), ("float8_e5m2", 1, "F8_E5M2"), ("float8_e8m0fnu", 1, "F8_E8M0")),
    *(("float8_e4m3fnuz", 1, "F8_E4M3FNUZ"), ("float8_e5m2fnuz", 1, "F8_E5M2FNUZ")),
    *((name, 1, None) for name in ("quint4x2", "quint2x4", "bits8", "bits1x8", "bits2x4", "bits4x2")),
    *((f"{sign}int{bits}", 1, None) for sign in ("", "u") for bits in range(1, 8)),
    ("bits16", 2, None),
)
_OTHER_NAMES = {
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "chalf": "complex32",
    "cfloat": "complex64",
    "cdouble": "complex128",
}

_BY_NAME: dict[str, ElementType] = {
    **{name: ElementType(name, nbytes, dtype) for name, nbytes, dtype in _PLAIN},
    "complex64": ElementType("complex64", 8, "C64", word=4),
    "complex128": ElementType("complex128", 16, "F64", typed="C128", word=8),
    "complex32": ElementType("complex32", 4, "F16", typed="C32", word=2),
    "float4_e2m1fn_x2": ElementType("float4_e2m1fn_x2", 1, "F4", packed=2),
    "quint8": ElementType("quint8", 1, "U8", quantized=True),
    "qint8": ElementType("qint8", 1, "I8", quantized=True),
    "qint32": ElementType("qint32", 4, "I32", quantized=True),
}
TYPES: Mapping[str, ElementType] = _BY_NAME | {name: _BY_NAME[other] for name, other in _OTHER_NAMES.items()}
"""The element types by name, by each of their names."""

STORAGES: Mapping[str, ElementType] = {
    f"{kind}Storage": _BY_NAME[name]
    for kind, name in {
        "Double": "float64",
        "Float": "float32",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Bool": "bool",
        "ComplexDouble": "complex128",
        "ComplexFloat": "complex64",
        "QUInt8": "quint8",
        "QInt8": "qint8",
        "QInt32": "qint32",
        "QUInt4x2": "quint4x2",
        "QUInt2x4": "quint2x4",
        "Untyped": "uint8",
    }.items()
}
"""The element type of each class of storages."""
