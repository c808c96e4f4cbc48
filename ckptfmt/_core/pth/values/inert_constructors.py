"""What plain values of the standard library become that are more than an object and its attributes: inert data.

All other kinds (`pth.names.kinds`) are kept as they stand in the pickle: arguments and attributes under their name.
"""

from __future__ import annotations

from collections.abc import Mapping

from ckptfmt._core.format.packing import Typed
from ckptfmt._core.pth.names.kinds import ENUMERATIONS, STRUCT_SEQUENCES
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import DictNode, Record
from ckptfmt._core.pth.pickle.folding import is_function
from ckptfmt._core.pth.values.builder import STATES, Builder, Constructor
from ckptfmt.errors import ForeignFileError

__all__ = ["INERT_CONSTRUCTORS"]


def _typed(builder: Builder, name: str, value: object) -> Typed:
    """Return inert data, and note it."""
    builder.notes.inert[name] += 1
    return Typed(name, value)


def _partial(builder: Builder, record: Record) -> object:
    """`partial(function)`, then a state: function, arguments, arguments by name, attributes."""
    match record.states:
        case [] if record.args:
            function, args, kwargs = record.args[0], record.args[1:], record.kwargs
        case [(function, tuple() as args, kwargs, _)] if is_function(function):
            pass
        case _:
            raise ForeignFileError("a partial function with a state that is none")
    if kwargs is not None and not isinstance(kwargs, DictNode):
        raise ForeignFileError("a partial function with names for its arguments that are none")
    facts = {
        "function": builder.value(function),
        "args": [builder.value(arg) for arg in args],
        "kwargs": builder.mapping([] if kwargs is None else kwargs.entries),
    }
    return _typed(builder, "functools.partial", facts)


def _buffer(builder: Builder, record: Record) -> object:
    """`BytesIO()`, then a state: content, position, attributes; of `StringIO` the line ends stand in between."""
    match [*record.args, *record.states]:
        case []:
            return _typed(builder, canonical(record.callee), {"content": b"", "position": 0})
        case [(content, int(position), _)] | [(content, _, int(position), _)]:
            pass
        case [content]:
            position = 0
        case _:
            raise ForeignFileError(f"{record.callee} with a state that is none")
    content = builder.raw(content)
    if not isinstance(content, bytes | str):
        raise ForeignFileError(f"{record.callee} of something else than bytes or text")
    return _typed(builder, canonical(record.callee), {"content": content, "position": position})


def _logger(builder: Builder, record: Record) -> object:
    match record.args:
        case () | (None,):
            return _typed(builder, "logging.Logger", "root")
        case (str(name),):
            return _typed(builder, "logging.Logger", name)
    raise ForeignFileError("a logger without a name")


def _pattern(builder: Builder, record: Record) -> object:
    match record.args:
        case (str() | bytes() as pattern, int(flags)):
            return _typed(builder, "re.Pattern", {"pattern": pattern, "flags": flags})
        case (str() | bytes() as pattern, Record(args=(int(flags),))):
            return _typed(builder, "re.Pattern", {"pattern": pattern, "flags": flags})
        case (pattern, flags):
            made = builder.raw(pattern)  # bytes are written as text before protocol 3
            if isinstance(made, bytes) and type(flags) is int:
                return _typed(builder, "re.Pattern", {"pattern": made, "flags": flags})
    raise ForeignFileError("a regular expression without a pattern")


def _hint(builder: Builder, record: Record) -> object:
    if len(record.args) != 2:
        raise ForeignFileError(f"a type hint of {len(record.args)} parts, it has 2")
    origin, parameters = (builder.value(part) for part in record.args)
    return _typed(builder, "types.GenericAlias", {"origin": origin, "args": parameters})


def _union(builder: Builder, record: Record) -> object:
    match record.args:
        case (tuple(types),):
            return _typed(builder, "types.UnionType", [builder.value(part) for part in types])
    raise ForeignFileError("a union without types")


def _zone(builder: Builder, record: Record) -> object:
    match record.args:
        case (str(key), *_):
            return _typed(builder, "zoneinfo.ZoneInfo", key)
    raise ForeignFileError("a time zone without a name")


def _member(builder: Builder, record: Record) -> object:
    if len(record.args) != 1:
        raise ForeignFileError(f"a member of {record.callee} without a value")
    return _typed(builder, canonical(record.callee), builder.value(record.args[0]))


def _row(builder: Builder, record: Record) -> object:
    """`struct_time((2026, 3, ...), {"tm_zone": ...})`."""
    match record.args:
        case (tuple() | list() as values,):
            more: object = {}
        case (tuple() | list() as values, DictNode(entries)):
            more = builder.mapping(entries)
        case _:
            raise ForeignFileError(f"{record.callee} without values")
    return _typed(builder, canonical(record.callee), {"values": builder.value(list(values)), "more": more})


INERT_CONSTRUCTORS: Mapping[str, Constructor] = {
    "functools.partial": Constructor(_partial, STATES),
    "io.BytesIO": Constructor(_buffer, STATES),
    "io.StringIO": Constructor(_buffer, STATES),
    "logging.getLogger": Constructor(_logger),
    "re._compile": Constructor(_pattern),
    "types.GenericAlias": Constructor(_hint),
    "types.UnionType": Constructor(_union),
    "collections.abc._CallableGenericAlias": Constructor(_hint),
    "zoneinfo.ZoneInfo._unpickle": Constructor(_zone),
    **dict.fromkeys(sorted(ENUMERATIONS), Constructor(_member)),
    **dict.fromkeys(sorted(STRUCT_SEQUENCES), Constructor(_row)),
}
"""The constructors by canonical name."""
