"""The official packages for safetensors and MessagePack read the members of the valid vectors, and agree."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgpack
import pytest
import safetensors

from spec.minimal_reader import read
from tests.spec.vectors import VALID, Vector, integers

KINDS = {1: "tensor", 2: "tuple", 3: "set", 6: "typed"}


def members(vector: Vector, extension: str, tmp_path: Path) -> dict[str, bytes]:
    """Logical bytes of the members with an extension, by component."""
    data: defaultdict[str, bytes] = defaultdict(bytes)

    def keep(member: str, _: str | None, chunk: bytes) -> None:
        component, _, found = member.rpartition(".") if "." in member else (member, "", "")
        if found == extension:
            data[component] += chunk

    read(vector.file(tmp_path), keep)
    return data


@pytest.mark.usefixtures("with_zstd")
@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector.name)
def test_the_safetensors_package_agrees(vector: Vector, tmp_path: Path) -> None:
    for component, data in members(vector, "safetensors", tmp_path).items():
        expected = vector.content["components"][component]
        views = safetensors.deserialize(data)  # type: ignore[no-untyped-call]  # ships without this annotation
        opened = {name: (view["dtype"], view["shape"], bytes(view["data"])) for name, view in views}
        assert opened == {
            tensor["name"]: (tensor["dtype"], integers(tensor["shape"]), bytes.fromhex(tensor["data"]))
            for tensor in expected["tensors"]
        }
        path = tmp_path / "member.safetensors"
        path.write_bytes(data)
        with safetensors.safe_open(path, framework="numpy") as file:
            assert (file.metadata() or {}) == expected["text_metadata"]


@pytest.mark.usefixtures("with_zstd")
@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector.name)
def test_the_msgpack_package_agrees(vector: Vector, tmp_path: Path) -> None:
    for component, data in members(vector, "msgpack", tmp_path).items():
        assert rendered(unpacked(data)) == vector.content["components"][component]["tree"]


class Pairs(list[tuple[Any, Any]]):
    """The pairs of a map."""


class Rendered(dict[str, Any]):
    """A value that is rendered already."""


def unpacked(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_ext, strict_map_key=False, object_pairs_hook=Pairs, timestamp=0)


def _ext(code: int, data: bytes) -> Rendered:
    if code == 4:
        return Rendered(rendered(int.from_bytes(data, "big", signed=True)))
    if code == 5:
        return Rendered(complex=data.hex())
    return Rendered({KINDS[code]: data.decode() if code == 1 else rendered(unpacked(data))})


def rendered(value: Any) -> Any:
    """Render a value in JSON, as spec/vectors/README.md says."""
    match value:
        case Rendered():
            return dict(value)
        case Pairs():
            return {"map": [[rendered(key), rendered(item)] for key, item in value]}
        case msgpack.Timestamp():
            return {"timestamp": [rendered(value.seconds), rendered(value.nanoseconds)]}
        case list():
            return [rendered(item) for item in value]
        case bytes():
            return {"bin": value.hex()}
        case float():
            return {"float": struct.pack(">d", value).hex()}
        case int() if not isinstance(value, bool) and abs(value) >= 2**53:
            return {"int": hex(value)}
        case _:
            return value
