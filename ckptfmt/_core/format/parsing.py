"""Parsing the index: every rule that can be checked without the members' bytes (spec 2.1, 5, 6, 7, 9, 13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NoReturn

from ckptfmt._core.format.chunks import CHUNK_BYTES, chunks_in
from ckptfmt._core.format.digest import DIGEST_BYTES, digest
from ckptfmt._core.format.index import (
    INDEX_KEYS,
    MEMBER_KEYS,
    METADATA_KEYS,
    MSGPACK,
    ROOT,
    SAFETENSORS,
    STORED_KEYS,
    Index,
    Member,
    Metadata,
    component_of,
    encode_index,
    is_member_name,
)
from ckptfmt._core.format.layout import (
    INDEX_ALIGNMENT,
    MAX_MEMBERS,
    MAX_MSGPACK_BYTES,
    MAX_UINT,
    MEMBER_ALIGNMENT,
    MINOR,
    PREAMBLE_BYTES,
    align,
)
from ckptfmt._core.format.packing import Timestamp, datetime_of
from ckptfmt._core.format.tensors import Header
from ckptfmt._core.format.unpacking import decode
from ckptfmt.errors import FormatError, Problem, error_for

MAX_STORED_EXCESS = 1024  # 7.3
MAX_RUN_ID_BYTES = 256  # 5.3


def parse_index(data: bytes, *, minor: int, index_offset: int) -> Index:
    """Return the index that `data` encodes, after checking all that can be checked without the members.

    Args:
        data: The bytes of the index.
        minor: Minor version of the file; a newer one may bring keys that are unknown here (16.1).
        index_offset: Where the index stands, in bytes.

    Raises:
        FormatError: With every problem found in the members, or the first one elsewhere.
    """
    index = _parse_schema(data, minor)
    problems = validate_members(index.members, index_offset)
    if problems:
        raise error_for(problems)
    return index


def validate_metadata(metadata: Metadata) -> None:
    """Check metadata before it is written, the way a reader does (5.3).

    Raises:
        FormatError: A value is not as the specification says.
        TypeError: A value of `user` is not plain.
        ValueError: A str holds a lone surrogate.
    """
    _parse_schema(encode_index(Index(metadata, ())), MINOR)


def validate_members(members: tuple[Member, ...], index_offset: int) -> list[Problem]:
    """Return every problem of the table of members (2.1, 6, 7, 9, 13); none of them needs the members' bytes."""
    if len(members) > MAX_MEMBERS:
        return validate_names([member.name for member in members])
    problems = validate_names([member.name for member in members])
    end = PREAMBLE_BYTES
    for member in members:
        expected = align(end, MEMBER_ALIGNMENT)
        if member.offset != expected:
            message = f"it starts at offset {member.offset}, it has to start at {expected}"
            problems.append(Problem("member-offset", message, member=member.name))
        end = member.offset + member.stored_bytes
        try:
            problems += _validate_member(member)
        except FormatError as error:
            problems += error.problems
    expected = align(end, INDEX_ALIGNMENT)
    if index_offset != expected and not problems:
        message = f"the index starts at offset {index_offset}, it has to start at {expected}"
        problems.append(Problem("index-bounds", message))
    return problems


def validate_names(names: Sequence[str]) -> list[Problem]:
    """Return what is wrong with the names of the members of a file, given in file order (6.1 to 6.4, 11.5, 13.1)."""
    if len(names) > MAX_MEMBERS:
        return [Problem("limit-members", f"{len(names)} members, the limit is {MAX_MEMBERS}")]
    problems: list[Problem] = []
    positions: dict[str, int] = {}
    folded: dict[str, str] = {}
    components: dict[str, str] = {}
    for number, name in enumerate(names):
        if not is_member_name(name):
            problems.append(Problem("member-name", f"{name[:200]!r} cannot name a member", member=name))
        other = folded.setdefault(name.lower(), name)
        if name in positions:
            problems.append(Problem("member-duplicate", "two members have this name", member=name))
        elif other != name:
            problems.append(Problem("member-duplicate", f"it and {other!r} differ in case only", member=name))
        component = component_of(name)
        if component is not None and components.setdefault(component.lower(), component) != component:
            message = f"components {components[component.lower()]!r} and {component!r} differ in case only"
            problems.append(Problem("member-duplicate", message, member=name))
        positions.setdefault(name, number)
    for name, number in positions.items():
        if name.endswith(MSGPACK):
            sibling = positions.get(name.removesuffix(MSGPACK) + SAFETENSORS, number + 1)
            if sibling != number + 1:
                message = "it does not stand directly before its component's safetensors member"
                problems.append(Problem("component-members", message, member=name))
    if ROOT in components and len(components) > 1:
        message = f"a file whose state is {ROOT} has no other component"
        problems.append(Problem("component-members", message))
    return problems


def _validate_member(member: Member) -> list[Problem]:
    """Return the problems of sizes, digests and header of one member; may raise FormatError for its header."""

    def problem(code: str, message: str) -> Problem:
        return Problem(code, message, member=member.name)

    if member.kind == "msgpack" and member.logical_bytes > MAX_MSGPACK_BYTES:
        return [problem("limit-msgpack", f"{member.logical_bytes} logical bytes, the limit is {MAX_MSGPACK_BYTES}")]
    if member.stored_bytes < 1 or (member.codec == "none" and member.stored_bytes != member.logical_bytes):
        message = f"{member.stored_bytes} stored bytes for {member.logical_bytes} logical ones cannot be"
        return [problem("member-bytes", message)]
    header = member.parsed_header
    if header is not None and member.logical_bytes != header.block_bytes + header.data_bytes:
        expected = header.block_bytes + header.data_bytes
        return [problem("member-bytes", f"{member.logical_bytes} logical bytes, its header makes them {expected}")]
    chunks = member.chunk_count
    if len(member.digests) != chunks * DIGEST_BYTES:
        return [problem("digest-count", f"{len(member.digests)} bytes of digests for {chunks} chunks")]
    problems: list[Problem] = []
    if header is not None:
        problems += _validate_header_digests(member, header)
    if member.codec != "none":
        problems += _validate_stored_chunks(member, chunks)
    return problems


def _validate_header_digests(member: Member, header: Header) -> list[Problem]:
    block = header.block()
    for number in range(chunks_in(header.block_bytes)):
        chunk = block[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        if digest(chunk) != member.digests_of(number, 1):
            message = "the header in the index is not the one that the digests speak of"
            return [Problem("header-digest", message, member=member.name)]
    return []


def _validate_stored_chunks(member: Member, chunks: int) -> list[Problem]:
    sizes, digests = member.stored_chunk_bytes or (), member.stored_digests or b""
    fits = len(sizes) == chunks and len(digests) == chunks * DIGEST_BYTES and sum(sizes) == member.stored_bytes
    if fits and all(
        1 <= size <= chunk.nbytes + MAX_STORED_EXCESS for size, chunk in zip(sizes, member.chunks(), strict=True)
    ):
        return []
    message = f"the sizes or digests of its stored chunks do not fit {chunks} chunks in {member.stored_bytes} bytes"
    return [Problem("stored-chunks", message, member=member.name)]


def _parse_schema(data: bytes, minor: int) -> Index:
    """Return the index with every key, order and type checked (5.1, 5.3, 5.4), and nothing else."""
    newer = minor > MINOR
    index = decode(data, plain=True)
    _check_features(index)
    fields = _fields(index, "the index", INDEX_KEYS, newer=newer)
    if not isinstance(fields["members"], list):
        _fail("index-schema", "members is not an array")
    if len(fields["members"]) > MAX_MEMBERS:
        _fail("limit-members", f"{len(fields['members'])} members, the limit is {MAX_MEMBERS}")
    metadata = _fields(fields["metadata"], "metadata", METADATA_KEYS, newer=newer, optional=METADATA_KEYS)
    members = tuple(_parse_member(member, newer) for member in fields["members"])
    return Index(_parse_metadata(metadata), members)


def _check_features(index: object) -> None:
    """Refuse an index that requires a feature, before anything else of it is judged (5.2): version 1.0 defines none."""
    features = index.get("required_features") if isinstance(index, dict) else None
    if type(features) is not list or not _is_list_of(features, str):
        _fail("index-schema", "the index is not a map in which required_features is an array of str")
    if features != sorted(set(features), key=str.encode):
        _fail("index-schema", "required_features is not sorted, or repeats a name")
    if features:
        names = ", ".join(features)
        _fail("feature-unknown", f"the file requires {names}, unknown to this reader; a newer ckptfmt reads it")


def _fields(
    value: object,
    what: str,
    keys: tuple[str, ...],
    *,
    newer: bool,
    optional: tuple[str, ...] = (),
    known: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Return the entries of a map, after checking that they are all there and in order.

    Args:
        value: The map.
        what: What to call it.
        keys: The keys that it has to have.
        newer: Whether to pass over keys that are not `known` (16.1).
        optional: Those of the `keys` that may be absent.
        known: The keys that version 1.0 knows in such maps; `keys`, if None.
    """
    known = keys if known is None else known
    if not isinstance(value, dict):
        _fail("index-schema", f"{what} is not a map")
    found = [key for key in value if key in known] if newer else list(value)
    expected = [key for key in keys if key not in optional or key in value]
    if found != expected:
        _fail("index-schema", f"{what} has the keys {_names(found)}, expected {_names(expected)}")
    return {key: value[key] for key in expected}


def _names(keys: list[Any]) -> str:
    text = ", ".join(str(key) for key in keys[:12])
    return f"({text})" if len(text) <= 200 else f"({text[:200]}...)"


def _parse_metadata(fields: dict[str, Any]) -> Metadata:
    checks: dict[str, Callable[[Any], bool]] = {
        "run_id": lambda value: type(value) is str and 1 <= len(value.encode()) <= MAX_RUN_ID_BYTES,
        "generation": _is_uint,
        "step": _is_uint,
        "epoch": _is_uint,
        "metrics": lambda value: (
            type(value) is dict and all(type(key) is str and type(number) is float for key, number in value.items())
        ),
        "created": lambda value: type(value) is Timestamp and isinstance(datetime_of(value), datetime),
        "parent": lambda value: type(value) is bytes and len(value) == DIGEST_BYTES,
        "producer": lambda value: type(value) is str,
        "user": lambda value: type(value) is dict and all(type(key) is str for key in value),
    }
    for key, value in fields.items():
        if not checks[key](value):
            _fail("index-schema", f"metadata.{key} is not as the specification says")
    return Metadata(**{key: _with_datetimes(value) for key, value in fields.items()})


def _with_datetimes(value: Any) -> Any:
    """Return a plain value with each timestamp that a datetime can hold as one, as in trees (11.6)."""
    match value:
        case Timestamp():
            return datetime_of(value)
        case list():
            return [_with_datetimes(item) for item in value]
        case dict():
            return {key: _with_datetimes(item) for key, item in value.items()}
    return value


def _parse_member(value: object, newer: bool) -> Member:
    codec = value.get("codec") if isinstance(value, dict) else None
    name = value.get("name") if isinstance(value, dict) else None
    has_header = isinstance(name, str) and name.endswith(SAFETENSORS)
    keys = tuple(key for key in MEMBER_KEYS if key != "header" or has_header)
    keys += () if codec == "none" else STORED_KEYS
    fields = _fields(value, "a member", keys, newer=newer, known=MEMBER_KEYS + STORED_KEYS)
    for key, kind in (
        ("name", str),
        ("codec", str),
        ("header", bytes),
        ("digests", bytes),
        ("stored_digests", bytes),
    ):
        if key in fields and type(fields[key]) is not kind:
            _fail("index-schema", f"{key} of a member is not a {kind.__name__}")
    for key in ("offset", "stored_bytes", "logical_bytes"):
        if not _is_uint(fields[key]):
            _fail("index-schema", f"{key} of member {name!r} is not an integer from 0 to 2^63 - 1")
    has_sizes = "stored_chunk_bytes" in fields
    sizes = fields.pop("stored_chunk_bytes", [])
    if not (_is_list_of(sizes, int) and all(map(_is_uint, sizes))):
        _fail(
            "index-schema",
            f"stored_chunk_bytes of member {name!r} is not an array of integers from 0 to 2^63 - 1",
        )
    return Member(**fields, stored_chunk_bytes=tuple(sizes) if has_sizes else None)


def _is_uint(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_UINT


def _is_list_of(value: object, kind: type) -> bool:
    return type(value) is list and all(type(item) is kind for item in value)


def _fail(code: str, message: str) -> NoReturn:
    raise error_for(Problem(code, message))
