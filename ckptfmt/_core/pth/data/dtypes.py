"""What PyTorch calls its element types and storages, and how their elements are expressed (spec 9, 11.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckptfmt._core.format.dtypes import ELEMENTS, DType

__all__ = ["STORAGES", "TYPES", "ElementType", "element_of"]


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


def element_of(element: DType) -> ElementType:
    """Return the element type of PyTorch for one that has a name there."""
    assert element.torch is not None
    nbytes = element.packed * element.bits // 8
    if element.parts is not None:
        return ElementType(element.torch, nbytes, element.parts, typed=element.name, word=element.word_bytes)
    return ElementType(element.torch, nbytes, element.name, word=element.word_bytes, packed=element.packed)


# Types that the format does not have: names only.
_BITS = ("quint4x2", "quint2x4", "bits8", "bits1x8", "bits2x4", "bits4x2")
_SHORT_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8))

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
    **{element.torch: element_of(element) for element in ELEMENTS.values() if element.torch is not None},
    **{name: ElementType(name, 1, None) for name in (*_BITS, *_SHORT_INTEGERS)},
    "bits16": ElementType("bits16", 2, None),
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
