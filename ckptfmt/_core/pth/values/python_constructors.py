"""What the classes of Python that checkpoints hold become: plain values, or inert ones under their name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

from ckptfmt._core.format.packing import Typed
from ckptfmt._core.pth.limits import MAX_DEPTH
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import DictNode, Global, Record, SetNode
from ckptfmt._core.pth.values.builder import ADDED, ANYTHING, ELEMENTS, ENTRIES, STATES, Builder, Constructor, StateDict
from ckptfmt.errors import ForeignFileError

__all__ = ["PYTHON_CONSTRUCTORS"]

Make = Callable[[Builder, Record], object]

_LARGEST_RANGE = 1 << 63
_DICTS = frozenset({"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"})


def _ordered_dict(builder: Builder, record: Record) -> object:
    """`OrderedDict()`, its items set afterwards, or given as pairs; `state_dict()` adds an attribute `_metadata`."""
    pairs = _pairs_given(record.args)
    value = builder.mapping([*pairs, *record.entries])
    versions = [entry for state in record.states for entry in _entries_of(state) if entry[0] == "_metadata"]
    if not versions or not isinstance(value, dict):
        return value
    noted = builder.value(versions[-1][1])
    if not isinstance(noted, Mapping):
        return value
    result = StateDict(value)
    result._metadata = {path: facts for path, facts in noted.items() if isinstance(facts, Mapping)}
    return result


def _dict(builder: Builder, record: Record) -> object:
    return builder.mapping([*_pairs_given(record.args), *record.entries])


def _default_dict(builder: Builder, record: Record) -> object:
    return builder.mapping([*_pairs_given(record.args[1:]), *record.entries])


def _pairs_given(args: tuple[object, ...]) -> list[tuple[object, object]]:
    """Return the pairs that a mapping is made of."""
    first: object = args
    for _ in range(MAX_DEPTH):
        match first:
            case () | (None,):
                return []
            case (DictNode(entries),):
                return entries
            case (list() | tuple() as pairs,):
                found = [(pair[0], pair[1]) for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
                if len(found) != len(pairs):
                    break
                return found
            case (Record(entries=entries) as record,) if canonical(record.callee) in _DICTS:
                if entries:
                    return entries
                first = record.args[canonical(record.callee) == "collections.defaultdict" :]
            case _:
                break
    raise ForeignFileError("a dict that is made of something else than pairs")


def _entries_of(state: object) -> list[tuple[object, object]]:
    return state.entries if isinstance(state, DictNode) else []


def _deque(builder: Builder, record: Record) -> object:
    items = list(record.args[0]) if record.args and isinstance(record.args[0], list | tuple) else []
    builder.notes.inert["collections.deque"] += 1
    return Typed("collections.deque", builder.value([*items, *record.elements]))


def _items(record: Record) -> list[object]:
    """Return what a list, tuple or set is made of."""
    given = [*record.elements, *record.added]
    if not record.args:
        return given
    (first,) = record.args if len(record.args) == 1 else (None,)
    if isinstance(first, list | tuple):
        return [*first, *given]
    if isinstance(first, SetNode):
        return [*first.elements, *given]
    raise ForeignFileError(f"a {record.callee.name} that is made of something else than a list")


def _list(builder: Builder, record: Record) -> object:
    return [builder.value(item) for item in _items(record)]


def _tuple(builder: Builder, record: Record) -> object:
    return tuple(_list(builder, record))  # type: ignore[arg-type]  # a list


def _set(builder: Builder, record: Record) -> object:
    return builder.set_of(_items(record))


def _frozenset(builder: Builder, record: Record) -> object:
    return builder.set_of(_items(record), frozen=True)


def _bytes(builder: Builder, record: Record) -> object:
    """`bytes()`, `bytes(data)`, `bytes([1, 2])`, `bytearray(text, "latin-1")`."""
    args = record.args
    match args:
        case ():
            return b""
        case (bytes(data),):
            return data
        case (list() | tuple() as numbers,) if all(type(number) is int and 0 <= number < 256 for number in numbers):
            return bytes(numbers)
        case (str(text), str(encoding)):
            return _encoded(builder, text, encoding)
        case (Record() as inner,):
            made = builder.raw(inner)
            if isinstance(made, bytes):
                return made
    raise ForeignFileError(f"{record.callee.name} of something else than bytes")


def _codecs_encode(builder: Builder, record: Record) -> object:
    """`_codecs.encode(text, "latin1")`: how bytes are written before protocol 3."""
    match record.args:
        case (str(text),):
            return _encoded(builder, text, "utf-8")
        case (str(text), str(encoding)):
            return _encoded(builder, text, encoding)
    raise ForeignFileError("_codecs.encode of something else than text")


def _encoded(builder: Builder, text: str, encoding: str) -> bytes:
    known = {"latin1": "latin-1", "latin-1": "latin-1", "utf-8": "utf-8", "utf8": "utf-8", "ascii": "ascii"}
    if encoding not in known:
        raise ForeignFileError(f"bytes in the encoding {encoding!a:.40}, which no checkpoint uses")
    builder.copied(len(text))
    try:
        return text.encode(known[encoding])
    except UnicodeEncodeError as error:
        raise ForeignFileError("bytes are written as text that does not stand for bytes") from error


def _number(kind: type[int | float | complex]) -> Make:
    def constructor(_: Builder, record: Record) -> object:
        args = record.args
        if not all(isinstance(arg, int | float) for arg in args) or len(args) > (2 if kind is complex else 1):
            raise ForeignFileError(f"{kind.__name__} of something else than numbers")
        try:
            return kind(*args)  # type: ignore[arg-type,call-overload]  # all are numbers
        except (ValueError, OverflowError) as error:
            raise ForeignFileError(f"{kind.__name__} of a number that it cannot be") from error

    return constructor


def _text(_: Builder, record: Record) -> object:
    match record.args:
        case ():
            return ""
        case (str(text),):
            return text
    raise ForeignFileError("str of something else than text")


def _integers(name: str) -> Make:
    def constructor(builder: Builder, record: Record) -> object:
        if not all(arg is None or (type(arg) is int and abs(arg) < _LARGEST_RANGE) for arg in record.args):
            return builder.inert(record)
        return Typed(name, list(record.args))

    return constructor


def _object(builder: Builder, record: Record) -> object:
    """`object()`, `copyreg._reconstructor(cls, object, None)`: what follows says what it is."""
    if canonical(record.callee) == "copyreg._reconstructor":
        match record.args:
            case (Global() as cls, Global(), *_):
                remade = replace(record, callee=cls, args=())
                if len(record.args) > 2 and record.args[2] is not None:
                    remade.args = (record.args[2],)
                return builder.raw(remade)
            case _:
                raise ForeignFileError("copyreg._reconstructor of something else than a class")
    return builder.inert(record)


def _namespace(builder: Builder, record: Record) -> object:
    name = canonical(record.callee)
    builder.notes.inert[name] += 1
    return Typed(name, builder.parts_of(record))


def _path(builder: Builder, record: Record) -> object:
    parts = builder.value(list(record.args))
    assert isinstance(parts, list)
    if not all(isinstance(part, str) for part in parts):
        raise ForeignFileError("a path of something else than text")
    name = canonical(record.callee)
    builder.notes.inert[name] += 1
    windows = "Windows" in name
    root = parts[0] if parts else "."
    joined = ("\\" if windows else "/").join([root.rstrip("/\\"), *parts[1:]]) if len(parts) > 1 else root
    return Typed(name, joined)


def _as_text(name: str) -> Make:
    """Return the constructor of a class whose objects are made of one string or have one attribute."""

    def constructor(builder: Builder, record: Record) -> object:
        builder.notes.inert[name] += 1
        parts = builder.parts_of(record)
        if parts.keys() == {"args"} and isinstance(parts["args"], list) and len(parts["args"]) == 1:
            return Typed(name, parts["args"][0])
        return Typed(name, parts)

    return constructor


def _time(make: Callable[[bytes], object], nbytes: int) -> Make:
    """Return the constructor of a class of `datetime`, whose objects are made of bytes."""

    def constructor(builder: Builder, record: Record) -> object:
        args = record.args
        packed = builder.raw(args[0]) if args else None
        if isinstance(packed, str):
            packed = _encoded(builder, packed, "latin-1")
        try:
            if isinstance(packed, bytes) and len(packed) == nbytes:
                made: Any = make(packed)
                zone = builder.raw(args[1]) if len(args) > 1 else None
                if zone is None:
                    return made
                if isinstance(zone, timezone):
                    return made.replace(tzinfo=zone)
            elif all(type(arg) is int for arg in args) and 3 <= len(args) <= 7 and nbytes != _TIME_BYTES:
                return (date if nbytes == _DATE_BYTES else datetime)(*args)  # type: ignore[arg-type]  # all are int
        except (ValueError, OverflowError, TypeError) as error:
            raise ForeignFileError(f"a {record.callee.name} that is none: {error}") from error
        return builder.inert(record)

    return constructor


_DATETIME_BYTES, _DATE_BYTES, _TIME_BYTES = 10, 4, 6


def _unpack_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second = int.from_bytes(data[:2], "big"), data[2], *data[3:7]
    return datetime(year, month & 0x7F, day, hour, minute, second, int.from_bytes(data[7:], "big"), fold=month >> 7)


def _unpack_date(data: bytes) -> date:
    return date(int.from_bytes(data[:2], "big"), data[2], data[3])


def _unpack_time(data: bytes) -> time:
    hour, minute, second = data[:3]
    return time(hour & 0x7F, minute, second, int.from_bytes(data[3:], "big"), fold=hour >> 7)


def _duration(builder: Builder, record: Record) -> object:
    numbers = [builder.raw(arg) for arg in record.args]
    try:
        if len(numbers) <= 3 and all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            return timedelta(*numbers)  # type: ignore[arg-type]  # all are numbers
    except OverflowError as error:
        raise ForeignFileError(f"a timedelta that is none: {error}") from error
    raise ForeignFileError("a timedelta of something else than numbers")


def _time_zone(builder: Builder, record: Record) -> object:
    """Return a time zone for the constructors of times; one that stands alone is inert."""
    match [builder.raw(arg) for arg in record.args]:
        case [timedelta() as offset, *_]:
            try:
                return timezone(offset)
            except ValueError as error:
                raise ForeignFileError(f"a time zone that is none: {error}") from error
    raise ForeignFileError("a time zone of something else than a time")


_NUMBERS: dict[str, type[int | float | complex]] = {"int": int, "float": float, "bool": bool, "complex": complex}

_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath".split()

PYTHON_CONSTRUCTORS: Mapping[str, Constructor] = {
    "collections.OrderedDict": Constructor(_ordered_dict, STATES | ENTRIES),
    "collections.defaultdict": Constructor(_default_dict, ENTRIES),
    "collections.Counter": Constructor(_dict, ENTRIES),
    "collections.deque": Constructor(_deque, ELEMENTS),
    "builtins.dict": Constructor(_dict, ENTRIES),
    "builtins.list": Constructor(_list, ELEMENTS),
    "builtins.tuple": Constructor(_tuple),
    "builtins.set": Constructor(_set, ADDED),
    "builtins.frozenset": Constructor(_frozenset),
    "builtins.bytes": Constructor(_bytes),
    "builtins.bytearray": Constructor(_bytes),
    "builtins.str": Constructor(_text),
    **{f"builtins.{name}": Constructor(_number(kind)) for name, kind in _NUMBERS.items()},
    "builtins.range": Constructor(_integers("builtins.range")),
    "builtins.slice": Constructor(_integers("builtins.slice")),
    "builtins.object": Constructor(_object, ANYTHING),
    "copyreg._reconstructor": Constructor(_object, ANYTHING),
    "_codecs.encode": Constructor(_codecs_encode),
    "argparse.Namespace": Constructor(_namespace, STATES),
    "types.SimpleNamespace": Constructor(_namespace, STATES),
    "datetime.datetime": Constructor(_time(_unpack_datetime, _DATETIME_BYTES)),
    "datetime.date": Constructor(_time(_unpack_date, _DATE_BYTES)),
    "datetime.time": Constructor(_time(_unpack_time, _TIME_BYTES)),
    "datetime.timedelta": Constructor(_duration),
    "datetime.timezone": Constructor(_time_zone),
    **{f"pathlib.{name}": Constructor(_path) for name in _PATHS},
    "uuid.UUID": Constructor(_as_text("uuid.UUID"), STATES),
    "decimal.Decimal": Constructor(_as_text("decimal.Decimal")),
    "fractions.Fraction": Constructor(_as_text("fractions.Fraction")),
}
"""The constructors by canonical name."""
