"""The library's reader beside the minimal reader: the same verdict, the same code and the same content.

A file can break several clauses, and a reader may name any of them (18.1). So the minimal reader is also run with each
check that fails noted and passed over. Whatever it notes is a code that the library may name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, Self
from unittest import mock

import blake3

from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.format.packing import TensorRef, Timestamp, Typed, encode
from ckptfmt.errors import FormatError
from spec import minimal_reader
from tests.readers.files import Case
from tests.spec.answers import Decoder, described

# Steps 1 to 8 of section 14: their order is fixed, so the code is, too. `index-bounds` is the code of step 10 as well.
ORDERED = {"magic", "too-short", "trailer-magic", "file-bytes", "limit-index", "index-digest", "major-version"}
ORDERED |= {"preamble-reserved"}
# What follows from a fault besides its own code, and the minimal reader does not go on to see.
CONSEQUENCES = {
    "tree-reference": {"typed-value", "tree-unreferenced"},  # a typed value of a tensor that is not there
    "typed-value": {"tree-unreferenced"},  # the value stands where a reference should
    "member-duplicate": {"component-members"},  # two members of a component, and one of them again
    "tensor-duplicate": {"header-json", "tensor-dtype", "tensor-shape", "tensor-offsets"},  # in the entry that is lost
}


class Memory:
    """A file in memory, as a `Source`."""

    def __init__(self, data: bytes) -> None:
        self.path = "memory"
        self.size = len(data)
        self.connections = 1
        self._data = memoryview(data)

    def read(self, offset: int, nbytes: int) -> bytes:
        data = bytes(self._data[offset : offset + nbytes])
        assert len(data) == nbytes, "a read beyond the end"
        return data

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))

    def read_cached(self, offset: int, buffer: memoryview) -> int:
        self.read_into(offset, buffer)
        return len(buffer)

    def view(self, offset: int, nbytes: int) -> memoryview | None:
        return None

    def private_view(self, offset: int, nbytes: int) -> memoryview | None:
        return None

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@dataclass(frozen=True)
class Answer:
    """What a reader says of a file: its content, or the codes of what is wrong."""

    content: Any = None
    codes: frozenset[str] = frozenset()


@contextmanager
def prepared() -> Iterator[None]:
    """Give the minimal reader a decoder of Zstandard and a fast hash."""
    with (
        mock.patch.object(minimal_reader, "zstd", Decoder),
        mock.patch.object(minimal_reader, "blake3", lambda data: blake3.blake3(data).digest()),
    ):
        yield


def of_the_minimal_reader(data: bytes) -> Answer:
    """Return the content of a file, or the one code with which the minimal reader refuses it."""
    try:
        return Answer(described(BytesIO(data)))
    except minimal_reader.Refused as error:
        return Answer(codes=frozenset([error.code]))


def all_codes(data: bytes) -> set[str]:
    """Return the codes of all checks of the minimal reader that fail, as far as it gets."""
    codes: set[str] = set()

    def noted(condition: object, code: str, message: str, tensor: str | None = None) -> None:
        if condition:
            return
        codes.add(code)
        if "0xC1" in message:  # in the payload of a tuple, set or typed value it is no array either
            codes.add("ext-payload")

    def tolerant(decoder: minimal_reader.Decoder, key: Any, others: set[Any]) -> None:
        with suppress(TypeError):  # it cannot be hashed, and that is noted
            check_key(decoder, key, others)

    def early(read: Callable[..., Any], width: int) -> Callable[..., Any]:
        """Note at once that the bytes cannot hold what is declared, as a reader may."""

        def checked(decoder: minimal_reader.Decoder, number: int, depth: int, end: int) -> Any:
            noted(width * number <= end - decoder.position, "msgpack-invalid", "")
            return read(decoder, number, depth, end)

        return checked

    decoder = minimal_reader.Decoder
    check_key = decoder._check_key
    with (
        mock.patch.object(minimal_reader, "must", noted),
        mock.patch.object(decoder, "_elements", early(decoder._elements, 1)),
        mock.patch.object(decoder, "_pairs", early(decoder._pairs, 2)),
        mock.patch.object(decoder, "_check_key", tolerant),
    ):
        try:
            minimal_reader.read_file(BytesIO(data))
        except minimal_reader.Refused as error:
            codes.add(error.code)
        except Exception:  # it relies on what it has checked; what it noted before counts
            pass
    return codes


def of_the_library(data: bytes) -> Answer:
    """Return what the library finds in a file when it opens it and verifies all of it."""
    try:
        checkpoint = Checkpoint(Memory(data))
        problems = checkpoint.verify()
        if not problems:
            return Answer(_content(checkpoint))
    except FormatError as error:
        problems = error.problems
    return Answer(codes=frozenset(problem.code for problem in problems))


def difference(case: Case, minimal: Answer) -> str | None:
    """Return how the library's answer to a file differs from that of the minimal reader; None if they agree.

    Of a file with several changes they may name any fault.
    """
    data = case.data
    try:
        library = of_the_library(data)
    except Exception as error:  # no answer at all
        return f"the library raises {type(error).__name__}: {error}"
    if minimal == library:
        return None
    if minimal.codes and library.codes:
        if case.changes > 1 and not minimal.codes <= ORDERED:
            return None
        allowed = set(minimal.codes if minimal.codes <= ORDERED else minimal.codes | all_codes(data))
        allowed = allowed.union(*(CONSEQUENCES.get(code, ()) for code in allowed))
        if library.codes <= allowed:
            return None
        return f"the minimal reader says {sorted(allowed)}, the library {sorted(library.codes)}"
    if minimal.codes or library.codes:
        verdicts = [sorted(answer.codes) or "valid" for answer in (minimal, library)]
        return f"the minimal reader says {verdicts[0]}, the library {verdicts[1]}"
    return f"different content: {_where(minimal.content, library.content)}"


def _where(one: Any, other: Any, path: str = "") -> str:
    """Return the first place where two contents differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            if one[key] != other[key]:
                return _where(one[key], other[key], f"{path}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for position, pair in enumerate(zip(one, other, strict=True)):
            if pair[0] != pair[1]:
                return _where(*pair, f"{path}[{position}]")
    return f"{path}: {one!r:.200} and {other!r:.200}"


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    """Describe what the library read in the form of a sidecar's content."""
    metadata = checkpoint.metadata
    keys = ("run_id", "generation", "step", "epoch", "metrics", "created", "parent", "producer", "user")
    members = []
    for member in checkpoint.index.members:
        fields = ("name", "codec", "offset", "stored_bytes", "logical_bytes")
        entry = {key: _rendered(getattr(member, key)) for key in fields}
        if member.kind == "opaque":
            entry["data"] = checkpoint.read_opaque(member.name).hex()
        members.append(entry)
    components = {}
    for name, component in checkpoint.items():
        components[name] = {
            "identity": component.identity,
            "flat": component.flat,
            "text_metadata": dict(component.text_metadata),
            "tensors": [
                {
                    "name": entry.name,
                    "dtype": entry.dtype,
                    "shape": _rendered(list(entry.shape)),
                    "data_offsets": _rendered([entry.begin, entry.end]),
                    "data": component.read_bytes(entry.name).hex(),
                }
                for entry in component.tensors.values()
            ],
        }
        if not component.flat:
            components[name]["tree"] = _rendered(component.structure())
    return {
        "version": list(checkpoint.version),
        "identity": checkpoint.identity,
        "metadata": {key: _rendered(getattr(metadata, key)) for key in keys if getattr(metadata, key) is not None},
        "members": members,
        "components": components,
    }


def _rendered(value: Any) -> Any:
    """Render a value of the library in JSON, as spec/vectors/README.md says."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 2**53 else {"int": hex(value)}
        case float():
            return {"float": struct.pack(">d", value).hex()}
        case complex():
            return {"complex": struct.pack(">2d", value.real, value.imag).hex()}
        case bytes():
            return {"bin": value.hex()}
        case datetime():
            seconds, microseconds = divmod(
                (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), 10**6
            )
            return {"timestamp": [_rendered(seconds), microseconds * 1000]}
        case Timestamp():
            return {"timestamp": [_rendered(value.seconds), value.nanoseconds]}
        case TensorRef():
            return {"tensor": value.name}
        case Typed():
            return {"typed": [value.name, _rendered(value.value)]}
        case tuple():
            return {"tuple": [_rendered(item) for item in value]}
        case set() | frozenset():
            return {"set": [_rendered(item) for item in sorted(value, key=encode)]}
        case list():
            return [_rendered(item) for item in value]
        case _:
            return {"map": [[_rendered(key), _rendered(item)] for key, item in value.items()]}
