"""Files that were made to break a reader: a result or one of our errors, in bounded memory."""

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt import Typed
from ckptfmt.errors import FormatError
from tests import strategies
from tests.containers import container, edit_index, open_bytes, with_index

MIB = 1 << 20
HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
BASE = {
    codec: container(("a.msgpack", b"\x90"), ("n.safetensors", (HEADER, 8)), ("notes.txt", b"hello"), codec=codec)
    for codec in ("none", "zstd")
}


@contextmanager
def bounded_memory(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def use(data: bytes) -> None:
    """Open, verify and load; any FormatError is fine, anything else is not."""
    try:
        checkpoint = open_bytes(data)
        checkpoint.verify()
        for component in checkpoint.values():
            assert len(component.identity) == 64
            assert component.codec
        checkpoint.load()
    except FormatError as error:
        assert error.problems  # noqa: PT017  # the assertion is about every error, whether or not one comes


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    use(data)
    use(BASE["none"][:64] + data)
    use(with_index(BASE["none"], data))


@settings(max_examples=200)
@given(st.data(), st.sampled_from(["none", "zstd"]))
def test_any_change_of_a_signed_index(data: st.DataObject, codec: str) -> None:
    """14.1: the digest is right, the content is not: an index that an attacker wrote."""

    def edit(tree: Any) -> Any:
        parent, key = None, None
        node = tree
        for _ in range(data.draw(st.integers(1, 4))):
            if not isinstance(node, dict | list) or not node:
                break
            parent = node
            key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            node = node[key]
        assert parent is not None
        value: Any = data.draw(
            st.one_of(
                st.sampled_from(
                    [0, 1, 2**31, 2**60, 2**63 - 1, 2**63, 2**64 - 1, -1, "", "../x", b"", [], {}, None, True]
                ),
                st.integers(0, 10_000),
                st.integers(-4096, 4096).map(lambda delta: node + delta if type(node) is int else delta),
                st.binary(max_size=64),
                strategies.text,
            )
        )
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            value = 0
        parent[key] = value  # type: ignore[index]  # a dict or a list
        return tree

    with bounded_memory(20 * MIB):
        use(edit_index(BASE[codec], edit))


@given(st.binary(max_size=200))
def test_any_structure_member(data: bytes) -> None:
    if data:
        use(container(("a.msgpack", data)))
        use(container(("a.msgpack", data), ("a.safetensors", (HEADER, 8))))


@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_any_header_text(text: bytes) -> None:
    use(container(("n.safetensors", (text, 8))))


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__", "\ud800", ""]),
        st.one_of(
            json_like,
            st.fixed_dictionaries(
                {
                    "dtype": st.one_of(st.sampled_from(["F32", "F4", "U8", "C64", "X"]), json_like),
                    "shape": st.one_of(
                        st.lists(st.sampled_from([0, 1, 2, 8, 2**62, 2**70, -1, True]), max_size=70), json_like
                    ),
                    "data_offsets": st.one_of(st.sampled_from([[0, 8], [0, 2**62], [8, 0]]), json_like),
                }
            ),
        ),
        max_size=3,
    )
)
def test_any_header_document(document: dict[str, Any]) -> None:
    import json

    text = json.dumps(document, separators=(",", ":")).encode()
    with bounded_memory(20 * MIB):
        use(container(("n.safetensors", (text, 8))))


@pytest.mark.parametrize(
    ("structure", "code"),
    [
        (b"\xdd\xff\xff\xff\xff", "limit-values"),
        (b"\xdf\x7f\xff\xff\xff", "limit-values"),
        (b"\xdc\xff\xff", "msgpack-invalid"),
        (b"\xc6\xff\xff\xff\xff", "msgpack-invalid"),
        (b"\xdb\xff\xff\xff\xff", "msgpack-invalid"),
        (b"\xc9\xff\xff\xff\xff\x01", "msgpack-invalid"),
        (b"\x91" * 100_000 + b"\xc0", "limit-depth"),
        (b"\x81\xc0" * 100_000 + b"\xc0", "limit-depth"),
    ],
)
def test_declared_counts_take_no_memory(structure: bytes, code: str) -> None:
    """13.1."""
    data = container(("a.msgpack", structure))
    with bounded_memory(4 * MIB), pytest.raises(FormatError) as caught:
        open_bytes(data).load()
    assert caught.value.code == code


def test_nested_ext_values_are_bounded() -> None:
    """13.1: tuples within tuples, each payload holding the next."""
    value = b"\xc0"
    for _ in range(3000):
        payload = b"\x91" + value
        length = len(payload)
        if length in (1, 2, 4, 8, 16):
            value = bytes([{1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}[length], 2]) + payload
        elif length < 256:
            value = bytes([0xC7, length, 2]) + payload
        else:
            value = b"\xc8" + length.to_bytes(2, "big") + b"\x02" + payload
    with pytest.raises(FormatError) as caught:
        open_bytes(container(("a.msgpack", value))).load()
    assert caught.value.code == "limit-depth"


SPY = """
import sys, ckptfmt
path = sys.argv[1]
ckptfmt.load(path)  # imports what the library itself needs
seen = []
def spy(event, arguments):
    opened = event == "open" and str(arguments[0]) != path
    if opened or event in ("import", "exec", "compile", "os.system", "subprocess.Popen", "ctypes.dlopen"):
        seen.append((event, str(arguments[:1])))
sys.addaudithook(spy)
ckptfmt.load(path)
sys.exit(str(seen) if seen else 0)
"""


@pytest.mark.parametrize(
    "value",
    [
        Typed("os.system", "echo hacked"),
        Typed("builtins.eval", ["__import__('os')"]),
        Typed(
            "torch.sparse_coo",
            {"indices": np.zeros((1, 1), np.int64), "values": np.ones(1), "size": [2], "is_coalesced": True},
        ),
        Typed("torch.device", "cuda:0"),
        {"__reduce__": ["os.system", "true"], "module": "antigravity"},
    ],
    ids=["os.system", "builtins.eval", "sparse", "device", "reduce"],
)
def test_reading_imports_nothing_and_opens_nothing_else(tmp_path: Path, value: object) -> None:
    """14.3: an audit hook sees every import, compilation and opened file."""
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"x": {"value": value, "w": np.ones(3)}}, path)
    ckptfmt.load(path)
    result = subprocess.run([sys.executable, "-c", SPY, str(path)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
