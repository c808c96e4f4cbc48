"""Opcodes that `pickle` would refuse on what they are carried out on: malformed, and never passed over in silence."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ckptfmt
from ckptfmt.errors import ForeignFileError
from tests.pth.attacks import global_of, stream_of, text, zip_of

DATA = {"data/0": bytes(16)}
STORAGE = b"(" + text("storage") + global_of("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x04tQ"
ORDERED = global_of("collections", "OrderedDict")
TENSOR = (
    global_of("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + STORAGE
    + b"K\x00K\x04\x85K\x01\x85\x89"
    + ORDERED
    + b")RtR"
)
ARRAY = (
    global_of("numpy._core.multiarray", "_reconstruct")
    + global_of("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R(K\x01K\x02\x85"
    + global_of("numpy", "dtype") + text("u1") + b"\x89\x88\x87R\x89C\x02ab" + b"tb"
)  # fmt: skip
CALLS = {
    "a tensor": TENSOR,
    "a parameter": global_of("torch._utils", "_rebuild_parameter") + b"(" + TENSOR + b"\x88" + ORDERED + b")RtR",
    "a size": global_of("torch", "Size") + b"K\x02\x85\x85R",
    "a device": global_of("torch", "device") + text("cpu") + b"\x85R",
    "a complex number": global_of("builtins", "complex") + b"K\x01K\x02\x86R",
    "a range": global_of("builtins", "range") + b"K\x01K\x02K\x03\x87R",
    "a date": global_of("datetime", "date") + b"C\x04\x07\xea\x03\x01\x85R",
    "a duration": global_of("datetime", "timedelta") + b"K\x01K\x02K\x03\x87R",
    "bytes": global_of("_codecs", "encode") + text("x") + text("latin1") + b"\x86R",
    "a frozenset": global_of("builtins", "frozenset") + b"]K\x01a\x85R",
    "a tuple": global_of("builtins", "tuple") + b"]K\x01a\x85R",
    "a scalar": global_of("numpy._core.multiarray", "scalar")
    + (global_of("numpy", "dtype") + text("u1") + b"\x89\x88\x87R" + b"C\x01a\x86R"),
}
OPCODES = {
    "SETITEM": text("a") + b"K\x01s",
    "SETITEMS": b"(" + text("a") + b"K\x01" + text("b") + b"K\x02u",
    "APPEND": b"K\x01a",
    "APPENDS": b"(K\x01K\x02e",
    "ADDITEMS": b"(K\x01K\x02\x90",
    "BUILD": b"}" + text("a") + b"K\x01sb",
}
# What may be given to an object after it was made.
TAKES = {
    "a dict of a class": (ORDERED + b")R", {"SETITEM", "SETITEMS", "BUILD"}),
    "a dict that is called": (global_of("builtins", "dict") + b")R", {"SETITEM", "SETITEMS"}),
    "a list that is called": (global_of("builtins", "list") + b")R", {"APPEND", "APPENDS"}),
    "a set that is called": (global_of("builtins", "set") + b")R", {"ADDITEMS"}),
    "a deque": (global_of("collections", "deque") + b")R", {"APPEND", "APPENDS"}),
    "a namespace": (global_of("argparse", "Namespace") + b")R", {"BUILD"}),
    "an object of another package": (global_of("package", "Config") + b")R", set(OPCODES)),
}


def of(*opcodes: bytes) -> bytes:
    return b"\x80\x04}" + text("a") + b"".join(opcodes) + b"s."


def cases() -> Iterator[tuple[str, bytes]]:
    for what, call in CALLS.items():
        for name, opcode in OPCODES.items():
            yield f"{name} on {what}", of(call, opcode)
    for what, (call, taken) in TAKES.items():
        for name, opcode in OPCODES.items():
            if name not in taken:
                yield f"{name} on {what}", of(call, opcode)
    # pushed as a key (beside a value), or as an element
    unhashable = {
        "a list": b"]",
        "a dict": b"}",
        "a set": b"\x8f",
        "a tuple of lists": b"]\x85",
        "a tuple deep inside": b"]\x85K\x01\x86\x85",
        "an ordered dict": ORDERED + b")R",
        "an array": ARRAY,
        "a bytearray": b"\x96" + (2).to_bytes(8, "little") + b"ab",
        "a bytearray that is called": global_of("builtins", "bytearray") + b"C\x01a\x85R",
        "a namespace": global_of("argparse", "Namespace") + b")R",
    }
    for what, node in unhashable.items():
        yield f"key: {what}", of(b"}", node, b"K\x01s")
        yield f"key of an ordered dict: {what}", of(ORDERED + b")R", node, b"K\x01s")
        yield f"element of a set: {what}", of(b"\x8f(", node, b"\x90")
        yield f"element of a frozenset: {what}", of(b"(", node, b"\x91")
        yield f"element of a set that is called: {what}", of(global_of("builtins", "set"), b"]", node, b"a\x85R")
        yield f"key of pairs: {what}", of(ORDERED, b"](", node, b"K\x01ta\x85R")


CASES = dict(cases())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stream", [False, True])
def test_it_is_malformed(tmp_path: Path, name: str, stream: bool) -> None:
    content = CASES[name]
    if stream and b"storage" in content:
        pytest.skip("a storage of a stream lies elsewhere")
    (tmp_path / "a.pth").write_bytes(stream_of(slots={3: content}) if stream else zip_of(content, DATA))
    with pytest.raises(ForeignFileError):
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_what_is_not_misused_is_taken(tmp_path: Path) -> None:
    for call in CALLS.values():
        (tmp_path / "a.pth").write_bytes(zip_of(of(call), DATA))
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    for call, taken in TAKES.values():
        for name in taken:
            (tmp_path / "a.pth").write_bytes(zip_of(of(call, OPCODES[name]), DATA))
            ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")


def test_what_can_be_a_key_is_taken(tmp_path: Path) -> None:
    keys = [1, "a", b"b", (1, ("c", None)), frozenset({1}), torch.Size([1]), torch.float32, 2.5, 1 + 2j, range(3)]
    state = {"a": dict.fromkeys(keys, 1), "b": {(1, 2), "c"}, "c": {torch.ones(1): 1}, "d": bytearray(b"x")}
    torch.save(state, tmp_path / "a.pth", pickle_protocol=4)
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    assert ckptfmt.load(tmp_path / "a.ckptfmt")["d"] == b"x"


def test_keys_that_share_their_parts_cost_little(tmp_path: Path) -> None:
    shared = b"K\x01\x85" + b"2\x86" * 60
    (tmp_path / "a.pth").write_bytes(of(b"}", shared, b"K\x01s"))
    with pytest.raises(ForeignFileError):
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")


def test_they_are_what_pickle_refuses() -> None:
    """Unpickle those that need no package for real, or the list above would be an opinion."""
    refused = 0
    for name, content in CASES.items():
        if any(word in content for word in (b"torch", b"numpy", b"package", b"argparse")):
            continue
        with pytest.raises((TypeError, AttributeError, pickle.UnpicklingError)):
            print(name, pickle.loads(content))
        refused += 1
    assert refused > 60
