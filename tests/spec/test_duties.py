"""Clauses about what programs do, seen with the spec's own tools; `spec/vectors/duties.json` names all such tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.errors import FormatError
from spec.minimal_reader import Refused, read
from tests import strategies
from tests.spec.vectors import INVALID, VALID

MIB = 1 << 20
A, B = np.arange(4, dtype=np.float32), np.arange(6).reshape(2, 3)


def written(path: Path, state: Any, **options: Any) -> dict[str, Any]:
    """What the minimal reader finds in a file that the library wrote."""
    ckptfmt.save(state, path, **options)
    return read(path)


@pytest.mark.usefixtures("with_zstd")
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    state=st.dictionaries(st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,9}", fullmatch=True), strategies.state_trees),
    metadata=strategies.metadata,
    codec=st.sampled_from(["none", "zstd"]),
)
def test_whatever_is_written_is_read_by_the_minimal_reader(
    tmp_path: Path, state: dict[str, Any], metadata: dict[str, Any], codec: str
) -> None:
    content = written(tmp_path / "a.ckptfmt", state, codec=codec, **metadata)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert content["identity"] == checkpoint.identity
        assert {name: made["identity"] for name, made in content["components"].items()} == {
            name: component.identity for name, component in checkpoint.items()
        }


@pytest.mark.parametrize(
    ("value", "flat"),
    [
        ({"a": A, "b": B}, True),
        ({"": A}, True),
        ({"a": A, "same values": A.copy()}, True),
        ({}, False),
        ({"a": A, "tied": A}, False),
        ({"a": A, "number": 1}, False),
        ({"a": A, "inner": {"b": B}}, False),
        ({1: A}, False),
        ({"__metadata__": A}, False),
        ({"a": A, "wide": A.astype(np.complex128)}, False),
        ([A, B], False),
    ],
)
def test_a_mapping_of_distinct_tensors_is_stored_flat(tmp_path: Path, value: Any, flat: bool) -> None:
    """11.3."""
    content = written(tmp_path / "a.ckptfmt", {"net": value, "epoch": 1})
    assert content["components"]["net"]["flat"] == flat
    assert content["members"][0]["name"] == ("net.safetensors" if flat else "net.msgpack")


@pytest.mark.parametrize(
    "state",
    [
        [1],
        None,
        A,
        {1: 2},
        {"": 1},
        {"a/b": 1},
        {"x" * 149: 1},
        {".a": 1},
        {"_root": 1},
        {"a": 1, "_root": 1},
        {"_a": 1},
        {"aux": 1},
        {"COM1.x": 1},
        {"net": 1, "Net": 1},
        {"a": A},
    ],
    ids=str,
)
def test_a_state_without_component_names_is_stored_as_root(tmp_path: Path, state: Any) -> None:
    """11.5."""
    path = tmp_path / "a.ckptfmt"
    assert list(written(path, state)["components"]) == ["_root"]
    assert strategies.same(ckptfmt.load(path), state)


def test_states_of_components_have_no_root(tmp_path: Path) -> None:
    """11.5, the other way round."""
    for state in ({}, {"a": 1}, {"a": A, "b": 1}, {"a": {"b": A}}, {"x" * 148: 1}):
        assert list(written(tmp_path / "a.ckptfmt", state)["components"]) == list(state)


@pytest.mark.usefixtures("with_zstd")
def test_declared_sizes_take_no_memory() -> None:
    """13.1: whatever a small file declares, a reader does not allocate it."""
    declaring = re.compile(r"2-\d\d|10-30|largest|wraps|bomb|13\.1-")
    for vector in INVALID:
        path = vector.path.with_name(f"{vector.name}.ckptfmt")
        if not path.exists() or not declaring.search(vector.name):
            continue
        tracemalloc.start()
        with pytest.raises(Refused):
            read(path)
        with pytest.raises(FormatError), ckptfmt.open(path) as checkpoint:
            checkpoint.load()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * MIB, vector.name


AUDIT = """
import json, sys
import ckptfmt

first, second = json.loads(sys.argv[1])
for path in first:
    ckptfmt.load(path)
events = []
sys.addaudithook(lambda event, arguments: events.append((event, str(arguments[0]) if arguments else "")))
for path in second:
    with ckptfmt.open(path) as checkpoint:
        checkpoint.verify()
        checkpoint.load()
found = [(event, argument) for event, argument in events if event != "object.__getattr__"]
print(json.dumps(found))
"""


def test_reading_runs_imports_and_opens_nothing(tmp_path: Path) -> None:
    """14.3, for a file with type names that are names of code."""
    files = {vector.name: str(vector.file(tmp_path)) for vector in VALID if vector.name.startswith("typed")}
    hostile = files.pop("typed-unknown")
    argument = json.dumps([list(files.values()), [hostile]])
    done = subprocess.run([sys.executable, "-c", AUDIT, argument], capture_output=True, text=True, check=True)
    events = json.loads(done.stdout)
    assert {argument for event, argument in events if event == "open"} == {hostile}
    for event, _ in events:
        assert event == "open" or event.partition(".")[0] not in (
            *("import", "exec", "compile", "subprocess", "os", "socket", "ctypes", "pickle", "marshal", "code"),
        )
