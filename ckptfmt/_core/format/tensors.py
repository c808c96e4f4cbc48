"""The header of a safetensors member: the list of its tensors to text and back (spec 9)."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple, NoReturn, TypeGuard

from ckptfmt._core.format.chunks import Segment, chunks_in, plan_segments
from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt._core.format.layout import MAX_HEADER_BYTES, MAX_UINT, MEMBER_ALIGNMENT, align
from ckptfmt._core.format.planes import WHOLE
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt.errors import FormatError, Problem, error_for

METADATA_KEY = "__metadata__"  # 9.2
MAX_DIMENSIONS = 64  # 9.2
LENGTH_BYTES = 8  # 9.1
_PAGE_BYTES, _LINE_BYTES = 4096, 64  # 9.4
_REMEMBERED = 8  # headers of
_REMEMBERED_BYTES = 1 << 20  # at most
_DECODER = json.JSONDecoder()
_OPENING = '{"'
_METADATA_OPENING = f'{{"{METADATA_KEY}":'
_MAX_DIGITS = 40  # a number with more digits is out of every range


_BITS = {name: dtype.bits for name, dtype in DTYPES.items()}


class TensorEntry(NamedTuple):
    """One tensor of a safetensors member.

    Attributes:
        name: Unique within the component.
        dtype: A key of `DTYPES`.
        shape: Sizes of its dimensions; empty for a scalar.
        begin: First byte of its data, counted from the end of the header block.
        end: Where its data end, counted likewise.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Length of the data in bytes."""
        return self.end - self.begin

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What the header of a safetensors member says.

    Attributes:
        tensors: In the component's own order.
        text_metadata: The member's `__metadata__`.
        text: The JSON text, unpadded (9.2).
    """

    tensors: tuple[TensorEntry, ...]
    text_metadata: Mapping[str, str]
    text: bytes
    block_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_bytes", align(LENGTH_BYTES + len(self.text), MEMBER_ALIGNMENT))

    @cached_property
    def data_bytes(self) -> int:
        """Length of all data in bytes."""
        return sum(tensor.end - tensor.begin for tensor in self.tensors)

    @cached_property
    def chunk_count(self) -> int:
        """Number of chunks of the member, counted without its segments: writing many tensors does not need those."""
        return chunks_in(self.block_bytes) + sum(chunks_in(tensor.end - tensor.begin) for tensor in self.tensors)

    def block(self) -> bytes:
        """Return the header block: length, text and the spaces that pad it (9.1)."""
        padded = self.block_bytes - LENGTH_BYTES
        return struct.pack("<Q", padded) + self.text.ljust(padded, b" ")

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of the member: the header block, then the tensors by offset (7.1)."""
        with collector_paused():
            parts = [(name, end - begin, DTYPES[dtype].split) for name, dtype, _, begin, end in self.by_offset()]
            return plan_segments([(None, self.block_bytes, WHOLE), *parts])

    def by_offset(self) -> list[TensorEntry]:
        """Return the tensors in the order of their data; those without data first among their neighbours."""
        return sorted(self.tensors, key=itemgetter(3, 4))


def tensor_nbytes(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Return the length in bytes of a tensor's data, or None if it is not a whole number (9.4)."""
    bits = math.prod(shape) * _BITS[dtype]
    return None if bits % 8 else bits // 8


def plan_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], text_metadata: Mapping[str, str] | None = None
) -> Header:
    """Return the one header for tensors given as (name, dtype, shape) in the component's order.

    Raises:
        FormatError: A dtype, shape or length is not allowed.
        LimitError: The header would be too large (13.1).
    """
    facts = list(tensors)
    kinds = _kinds_of(facts)
    placed = _place(facts, kinds)
    header = Header(placed, MappingProxyType(dict(text_metadata or {})), _encode_text(placed, kinds, text_metadata))
    _check_size(len(header.text))
    return header


class _Kind(NamedTuple):
    """What all tensors of one dtype and shape have in common: there are few kinds, even of many tensors.

    Attributes:
        dtype: Their dtype.
        shape: Their shape.
        nbytes: Length of their data in bytes.
        group: The group of their data (9.4): 0 for multiples of a page, 1 of 64 bytes, 2 for the rest.
        text: What the header says of them.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    group: int
    text: str


def _kinds_of(facts: Sequence[tuple[str, str, tuple[int, ...]]]) -> list[_Kind]:
    """Return the kind of each tensor, after checking name, dtype and shape."""
    known: dict[tuple[str, tuple[int, ...]], _Kind] = {}
    kinds = []
    for name, dtype, shape in facts:
        if name == METADATA_KEY:
            _fail("header-json", f"no tensor can be named {METADATA_KEY}; choose another name", name)
        kind = known.get((dtype, shape))
        if kind is None:
            kind = known[dtype, shape] = _kind_of(name, dtype, shape)
        kinds.append(kind)
    return kinds


def _kind_of(name: str, dtype: str, shape: tuple[int, ...]) -> _Kind:
    if dtype not in DTYPES:
        _fail("tensor-dtype", f"its dtype is {dtype!r}, which this version of the format does not know", name)
    if not _is_shape(shape):
        _fail("tensor-shape", f"its shape {_shorten(shape)} is not allowed", name)
    nbytes = tensor_nbytes(dtype, shape)
    if nbytes is None:
        _fail("tensor-offsets", f"{dtype} data of shape {list(shape)} is not a whole number of bytes", name)
    group = 2 if nbytes % _LINE_BYTES else 1 if nbytes % _PAGE_BYTES else 0
    return _Kind(dtype, shape, nbytes, group, f'"dtype":"{dtype}","shape":[{",".join(map(str, shape))}]')


def _place(facts: Sequence[tuple[str, str, tuple[int, ...]]], kinds: Sequence[_Kind]) -> tuple[TensorEntry, ...]:
    """Return the tensors with the places of their data: multiples of a page, then of 64 bytes, then the rest (9.4)."""
    totals = [0, 0, 0]
    for kind in kinds:
        totals[kind.group] += kind.nbytes
    ends = [0, totals[0], totals[0] + totals[1]]
    entries = []
    for (name, _, _), (dtype, shape, nbytes, group, _) in zip(facts, kinds, strict=True):
        begin = ends[group]
        ends[group] = end = begin + nbytes
        entries.append(TensorEntry(name, dtype, shape, begin, end))
    return tuple(entries)


def _encode_text(
    tensors: Sequence[TensorEntry], kinds: Sequence[_Kind], text_metadata: Mapping[str, str] | None
) -> bytes:
    items = []
    if text_metadata:
        items.append(f'"{METADATA_KEY}":{_json(dict(text_metadata))}')
    quoted = json.encoder.encode_basestring  # what `json.dumps` with `ensure_ascii=False` uses
    for (name, _, _, begin, end), kind in zip(tensors, kinds, strict=True):
        items.append(f'{quoted(name)}:{{{kind.text},"data_offsets":[{begin},{end}]}}')
    text = f"{{{','.join(items)}}}"
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        _fail("header-json", f"a lone surrogate in a name: {error.object[error.start - 8 : error.end]!a}")


def _json(value: object) -> str:
    """Return the form of 9.3, escapes included."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _check_size(text_bytes: int, member: str | None = None) -> None:
    padded = align(LENGTH_BYTES + text_bytes, MEMBER_ALIGNMENT) - LENGTH_BYTES
    if padded > MAX_HEADER_BYTES:
        message = f"a safetensors header of {padded} bytes, the limit is {MAX_HEADER_BYTES}"
        raise error_for(Problem("limit-header", message, member=member))


def parse_header(text: bytes, member: str | None = None) -> Header:
    """Return the header whose unpadded text is `text`.

    Raises:
        FormatError: The text is not the one canonical header of any list of tensors (9.2 to 9.7).
        LimitError: It is too large (13.1).
        UnsupportedVersionError: A dtype is unknown.
    """
    _check_size(len(text), member)
    header = _parse_remembered(text) if len(text) <= _REMEMBERED_BYTES else _parse_canonical(text)
    return header if header is not None else _parse_strictly(text, member)


@lru_cache(maxsize=_REMEMBERED)
def _parse_remembered(text: bytes) -> Header | None:
    """Return what `_parse_canonical` does. The checkpoints of a run have equal headers: a thousand are parsed once."""
    return _parse_canonical(text)


def _parse_canonical(text: bytes) -> Header | None:
    """Return the header if the text is what we would write, and nothing else; None if it needs a closer look.

    It need not be read with care: what is written again as it stands, with each name once, has been understood, and has
    no other order and no other offsets. Only what several values of Python are written as has to be looked at: types
    and limits.
    """
    try:
        text_metadata, facts = _quick_facts(str(text, "utf-8"))
        names = {name for name, _, _ in facts}
        if not facts or len(names) < len(facts) or METADATA_KEY in names:
            return None
        if text_metadata and not all(type(value) is str for value in text_metadata.values()):
            return None
        header = plan_header(facts, text_metadata)
    except (FormatError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return header if header.text == text else None


def _quick_facts(text: str) -> tuple[dict[str, str], list[tuple[str, str, tuple[int, ...]]]]:
    """Return metadata and (name, dtype, shape) of the tensors, if the text is written as we write it; else anything.

    It takes less time and memory than a JSON parser, which makes several objects for each tensor.
    """
    text_metadata: dict[str, str] = {}
    start = len(_OPENING)
    if text.startswith(_METADATA_OPENING):
        text_metadata, start = _DECODER.raw_decode(text, len(_METADATA_OPENING))
        start += len(',"')
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
    facts = []
    for item in text[start : -len("}}")].split('},"'):
        start_of_offsets = item.rindex(',"data_offsets":[')
        name, _, description = item[:start_of_offsets].partition('":{')
        if description not in kinds:
            found = json.loads(f"{{{description}}}")
            kinds[description] = found["dtype"], tuple(found["shape"])
        dtype, shape = kinds[description]
        facts.append((json.loads(f'"{name}"') if "\\" in name else name, dtype, shape))
    return text_metadata, facts


def _is_shape(shape: tuple[object, ...]) -> bool:
    if len(shape) > MAX_DIMENSIONS:
        return False
    product = 1
    for size in shape:
        if type(size) is not int or size < 0:
            return False
        product *= size or 1
    return product <= MAX_UINT


def _parse_strictly(text: bytes, member: str | None) -> Header:
    """Return the header, or say what is wrong with its text."""
    try:
        document = json.loads(
            str(text, "utf-8"),
            object_pairs_hook=_Pairs,
            parse_constant=_refuse_constant,
            parse_int=_parse_number,
            parse_float=_parse_number,
        )
    except (ValueError, RecursionError) as error:
        _fail("header-json", f"the header is not JSON in UTF-8: {error}", member=member)
    if not isinstance(document, _Pairs):
        _fail("header-json", "the header is not a JSON object", member=member)
    text_metadata: dict[str, str] = {}
    facts: list[tuple[str, str, tuple[int, ...]]] = []
    offsets: list[tuple[int, int]] = []
    seen: set[str] = set()
    for name, value in document:
        if name in seen:
            code = "header-json" if name == METADATA_KEY else "tensor-duplicate"
            _fail(code, f"the name {name!r} stands twice in the header", name, member)
        seen.add(name)
        if name == METADATA_KEY:
            text_metadata = _parse_text_metadata(value, member)
        else:
            dtype, shape, where = _parse_entry(name, value, member)
            facts.append((name, dtype, shape))
            offsets.append(where)
    if not facts:
        _fail("header-json", "the header lists no tensor", member=member)
    try:
        del document  # what is made next can have its memory
        header = plan_header(facts, text_metadata)
    except FormatError as error:
        raise error_for([replace(problem, member=member) for problem in error.problems]) from error
    for tensor, (begin, end) in zip(header.tensors, offsets, strict=True):
        if (tensor.begin, tensor.end) != (begin, end):
            message = f"data_offsets are [{begin}, {end}], they have to be [{tensor.begin}, {tensor.end}]"
            _fail("tensor-offsets", message, tensor.name, member)
    if header.text != text:
        _fail("header-canonical", "the header has the right content in another order or form", member=member)
    return header


class _Pairs(list[tuple[str, object]]):
    """A JSON object as its pairs, so that duplicate keys are seen."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_number(text: str) -> int | float:
    """Return the integer that a JSON number is, however it is written; infinity for one that no rule allows (9.3)."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of many digits
        return math.inf
    if number and (number.adjusted() > _MAX_DIGITS or number != number.to_integral_value()):
        return math.inf
    return int(number)


def _parse_text_metadata(value: object, member: str | None) -> dict[str, str]:
    if not isinstance(value, _Pairs) or not value or not all(isinstance(text, str) for _, text in value):
        _fail("header-json", f"{METADATA_KEY} is not a non-empty object of strings", member=member)
    result = {key: text for key, text in value if isinstance(text, str)}
    if len(result) != len(value):
        _fail("header-json", f"a key stands twice in {METADATA_KEY}", member=member)
    return result


def _parse_entry(name: str, value: object, member: str | None) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Return dtype, shape and data_offsets of one tensor."""
    entry = dict(value) if isinstance(value, _Pairs) else {}
    if not isinstance(value, _Pairs) or len(value) != 3 or set(entry) != {"dtype", "shape", "data_offsets"}:
        _fail("header-json", "its entry is not an object of dtype, shape and data_offsets", name, member)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _is_numbers(shape) or not _is_numbers(offsets) or len(offsets) != 2:
        _fail("header-json", "its dtype is not a string, or shape or data_offsets no numbers", name, member)
    if dtype not in DTYPES:
        _fail("tensor-dtype", f"its dtype is {dtype!r}, which this reader does not know", name, member)
    sizes = tuple(size for size in shape if isinstance(size, int) and size >= 0)
    product = math.prod(size for size in sizes if size) if len(shape) <= MAX_DIMENSIONS else 0
    if len(shape) > MAX_DIMENSIONS or len(sizes) < len(shape) or product > MAX_UINT:
        _fail("tensor-shape", f"its shape {_shorten(shape)} is not allowed", name, member)
    begin, end = offsets
    if not isinstance(begin, int) or not isinstance(end, int):
        _fail("tensor-offsets", "its data_offsets are no integers, or far too large", name, member)
    return dtype, sizes, (begin, end)


def _is_numbers(value: object) -> TypeGuard[list[int | float]]:
    return type(value) is list and all(type(item) in (int, float) for item in value)


def _shorten(shape: Sequence[int | float]) -> str:
    return f"[{', '.join(map(str, shape[:8]))}{', ...' if len(shape) > 8 else ''}]"


def _fail(code: str, message: str, tensor: str | None = None, member: str | None = None) -> NoReturn:
    raise error_for(Problem(code, message, member=member, tensor=tensor))
