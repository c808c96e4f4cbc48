"""NumPy's dtypes as pickles write them, without NumPy: of numbers, text, times, and of records with fields."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ckptfmt._core.format.dtypes import ELEMENTS
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.pth.data.dtypes import ElementType, element_of
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import DictNode, Global, Record, describe
from ckptfmt._core.pth.values.builder import Builder
from ckptfmt.errors import ForeignFileError

__all__ = ["ELEMENTS_OF", "ArrayType", "array_type", "text_type"]

ELEMENTS_OF = {
    element.code or element.numpy: element_of(element) for element in ELEMENTS.values() if element.numpy is not None
}
"""The element types that a tensor can have, by NumPy's code, or by the name of the class of ml_dtypes."""

_INERT = re.compile(r"([SUV])(\d{0,9})|([Mm])8|f(12|16)|c(24|32)")
_OBJECTS = ("O", "O8", "O4")


@dataclass(frozen=True, eq=False)
class ArrayType:
    """A dtype.

    Attributes:
        code: Kind and bytes of an element such as `f4`, `U12` or `O`; the name of one of ml_dtypes.
        swapped: Whether its numbers are big-endian.
        nbytes: Bytes of an element; None where they are not known.
        unit: Of times, what they are counted in, such as `[ns]`.
        structure: Of records, their fields: name, dtype and offset of each; of arrays as elements, `base` and `shape`.
    """

    code: str
    swapped: bool
    nbytes: int | None = None
    unit: str = ""
    structure: object = None

    @property
    def element(self) -> ElementType | None:
        """The element type of a tensor, if there is one."""
        return None if self.structure is not None else ELEMENTS_OF.get(self.code)

    @property
    def objects(self) -> bool:
        """Whether the elements are Python objects, which are pickled one by one."""
        return self.code in _OBJECTS

    @property
    def description(self) -> object:
        """What it is, as plain data."""
        order = "|" if self.nbytes == 1 or self.code[:1] in "SVO" else ">" if self.swapped else "<"
        return self.structure if self.structure is not None else f"{order}{self.code}{self.unit}"

    def published(self, _: Builder) -> Typed:
        """Return the dtype where it stands alone."""
        if self.structure is not None:
            return Typed("numpy.dtype", self.structure)
        return Typed("numpy.dtype", (">" if self.swapped else "") + self.code + self.unit)


def array_type(builder: Builder, record: Record) -> object:
    """`numpy.dtype("f4", False, True)`, then a state: version, byte order, base, names, fields, bytes, and more."""
    code = _code(record.args[0] if record.args else None)
    state = record.states[-1] if record.states else ()
    if not isinstance(state, tuple):
        raise ForeignFileError("a NumPy dtype with a state that is none")
    order, base, names, fields, nbytes = (*state[1:6], *[None] * 5)[:5]
    if code == "record":
        code = f"V{nbytes}" if type(nbytes) is int and 0 <= nbytes < 1 << 30 else "V"
    if code not in ELEMENTS_OF and code not in _OBJECTS and not _INERT.fullmatch(code):
        raise ForeignFileError(f"an array of NumPy dtype {code!a:.40}, which cannot be expressed")
    structure: object = None
    if fields is not None:
        structure = _fields(builder, names, fields)
    elif base is not None:
        structure = _subarray(builder, base)
    return ArrayType(code, order == ">", _nbytes(code), _unit(builder, code, state), structure)


def text_type(_: Builder, record: Record) -> object:
    """`_convert_to_stringdtype_kwargs(coerce, na_object)`: text of any length, whose elements are pickled as text."""
    del record
    return ArrayType("O", swapped=False, structure="T")


def _code(first: object) -> str:
    if isinstance(first, Global):
        return canonical(first).rpartition(".")[2]
    if not isinstance(first, str):
        raise ForeignFileError(f"a NumPy dtype made of {describe(first)}")
    return first[1:] if first.startswith(("<", ">", "|", "=")) else first


def _nbytes(code: str) -> int | None:
    element = ELEMENTS_OF.get(code)
    if element is not None:
        return element.nbytes
    match = _INERT.fullmatch(code)
    if match is None or code in ("S", "U", "V"):
        return None
    if match[1]:
        return int(match[2]) * (4 if match[1] == "U" else 1)
    return 8 if match[3] else int(match[4] or match[5])


def _unit(builder: Builder, code: str, state: tuple[object, ...]) -> str:
    """Return what times are counted in, which stands in the last part of the state."""
    match state[8:]:
        case ((_, (unit, int(count), *_)),) if code in ("M8", "m8"):
            name = builder.raw(unit)
            text = name.decode("latin-1") if isinstance(name, bytes) else name
            if isinstance(text, str) and text.isalpha() and text.isascii() and len(text) < 10:
                return f"[{count if count != 1 else ''}{text}]"
    return ""


def _fields(builder: Builder, names: object, fields: object) -> list[object]:
    if not isinstance(fields, DictNode) or not isinstance(names, tuple):
        raise ForeignFileError("a NumPy dtype with fields that are none")
    known = {name: field for name, field in fields.entries if isinstance(name, str | bytes)}
    found: list[object] = []
    for name in names:
        match known.get(name) if isinstance(name, str | bytes) else None:
            case (Record() as node, int(offset), *_):
                found.append({"name": name, "dtype": _described(builder, node), "offset": offset})
            case _:
                raise ForeignFileError("a NumPy dtype with a field that is none")
    return found


def _subarray(builder: Builder, base: object) -> dict[str, object]:
    match base:
        case (Record() as node, shape):
            sizes = shape if isinstance(shape, tuple) else (shape,)
            if all(type(size) is int for size in sizes):
                return {"base": _described(builder, node), "shape": list(sizes)}
    raise ForeignFileError("a NumPy dtype of arrays that are none")


def _described(builder: Builder, node: Record) -> object:
    made = builder.raw(node)
    if not isinstance(made, ArrayType):
        raise ForeignFileError(f"{describe(node)} stands in the place of a NumPy dtype")
    return made.description
