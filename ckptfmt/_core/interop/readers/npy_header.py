"""Headers of NumPy's `.npy` arrays: the few literals that stand in them, read without Python's own parser."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ckptfmt._core.format.dtypes import ELEMENTS
from ckptfmt._core.format.layout import MAX_UINT

__all__ = ["MAGIC", "MAX_HEADER_BYTES", "ArrayHeader", "ElementKind", "parse_header"]

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000
"""NumPy's own limit for files that are not trusted."""

_MOST_LEVELS = 16
_DTYPES = {element.code: element.name for element in ELEMENTS.values() if element.code is not None}
_DESCR = re.compile(r"([<>=|]?)([A-Za-z])(\d{0,9})(\[[^\[\]]{1,20}\])?")
_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[{}()\[\],:])
    |(?P<number>\d{1,19})L?(?![\w.])     # Python 2 wrote 3L
    |(?P<truth>True|False)(?!\w)
    |[ubUB]?'(?P<single>(?:[^'\\\n]|\\.)*)'
    |[ubUB]?"(?P<double>(?:[^"\\\n]|\\.)*)")""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class ElementKind:
    """The element type of an array.

    Attributes:
        name: Our name of it (spec section 9) or `C128`; NumPy's, where there is none.
        nbytes: Bytes of one element.
        word_bytes: Bytes of one number in it, which are in reverse order if `swapped`.
        swapped: Whether its numbers are big-endian.
        pickled: Whether its elements are Python objects, so that the data are a pickle.
    """

    name: str
    nbytes: int
    word_bytes: int = 1
    swapped: bool = False
    pickled: bool = False


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of an array says.

    Attributes:
        kind: Its element type.
        shape: Its shape.
        fortran: Whether its elements lie in Fortran order.
    """

    kind: ElementKind
    shape: tuple[int, ...]
    fortran: bool


def parse_header(text: str) -> ArrayHeader:
    """Return what a header says.

    Raises:
        ValueError: It is not one of NumPy's; the message says why.
    """
    literals = _Literals(text.rstrip())
    facts = literals.value(0)
    if not literals.at_end or not isinstance(facts, dict) or facts.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("it is no dict of descr, fortran_order and shape")
    shape, fortran = facts["shape"], facts["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(size) is int for size in shape):
        raise ValueError("its shape is no tuple of sizes")
    if math.prod(size for size in shape if size) > MAX_UINT:
        raise ValueError("its shape is beyond any memory")
    if type(fortran) is not bool:
        raise ValueError("its fortran_order is neither True nor False")
    return ArrayHeader(_kind(facts["descr"]), shape, fortran)


class _Literals:
    """Reads strings, numbers, True, False, and tuples, lists and dicts of them from a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._text)

    def value(self, level: int) -> object:
        """Return the next literal."""
        kind, word = self._token()
        match kind, word:
            case "number", _:
                return int(word)
            case "truth", _:
                return word == "True"
            case (("single" | "double"), _):
                return word
            case "mark", ("(" | "[" | "{") if level < _MOST_LEVELS:
                return self._container(word, level + 1)
        raise ValueError(f"{word!a} stands where a value is expected, or too deep inside of others")

    def _container(self, opening: str, level: int) -> object:
        closing = {"(": ")", "[": "]", "{": "}"}[opening]
        items: list[object] = []
        pairs: dict[object, object] = {}
        commas = 0
        while not self._take(closing):
            if len(items) + len(pairs) > commas:
                self._expect(",")
                commas += 1
                continue
            item = self.value(level)
            if opening != "{":
                items.append(item)
                continue
            self._expect(":")
            if not isinstance(item, str) or item in pairs:
                raise ValueError("it has a key that is no text, or stands twice")
            pairs[item] = self.value(level)
        if opening == "{":
            return pairs
        if opening == "[":
            return items
        return items[0] if len(items) == 1 and not commas else tuple(items)

    def _token(self) -> tuple[str, str]:
        match = _TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"{self._text[self._at : self._at + 20]!a} is none of the literals that NumPy writes")
        self._at = match.end()
        return match.lastgroup, match[match.lastgroup]

    def _take(self, mark: str) -> bool:
        """Read a mark, if it is the next token."""
        before = self._at
        if self._token() == ("mark", mark):
            return True
        self._at = before
        return False

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise ValueError(f"{self._text[self._at : self._at + 20]!a} stands where {mark!r} is expected")


def _kind(descr: object) -> ElementKind:
    """Return the element type that a dtype is.

    Raises:
        ValueError: NumPy writes no such dtype.
    """
    if not isinstance(descr, str):
        nbytes, pickled = _structure(descr)
        return ElementKind(f"{descr!a:.100}", nbytes, pickled=pickled)
    match = _DESCR.fullmatch(descr)
    if match is None or (match[4] and match[2] not in "Mm"):
        raise ValueError(f"its dtype is {descr!a:.80}, which NumPy does not write")
    order, kind, digits = match[1], match[2], int(match[3] or 0)
    if kind == "O":
        return ElementKind("object", 0, pickled=True)
    nbytes = digits * 4 if kind == "U" else digits
    word = nbytes // 2 if kind == "c" else 4 if kind == "U" else 1 if kind in "SV" else nbytes
    own = _DTYPES.get(kind + match[3])
    swapped = order == ">" and word > 1
    return ElementKind(own or (f"<{descr[1:]}" if swapped else descr), nbytes, word, swapped)


def _structure(descr: object) -> tuple[int, bool]:
    """Return the length of an element of a structured dtype, and whether it holds Python objects."""
    if not isinstance(descr, list):
        raise ValueError(f"its dtype is {descr!a:.80}, which NumPy does not write")
    total, pickled = 0, False
    for field in descr:
        match field:
            case (_, inner):
                times = 1
            case (_, inner, tuple(sizes)) if all(type(size) is int for size in sizes):
                times = math.prod(sizes)
            case _:
                raise ValueError(f"its dtype has the field {field!a:.80}, which NumPy does not write")
        kind = _kind(inner)
        total, pickled = total + times * kind.nbytes, pickled or kind.pickled
    return total, pickled
