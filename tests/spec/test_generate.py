"""The generator makes what is committed, and shares no code with the library."""

from __future__ import annotations

import ast
import json
import struct
from pathlib import Path

import pytest

from ckptfmt._core.format.codec import decode_chunk
from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt._core.format.packing import TensorRef, Typed
from ckptfmt._core.format.unpacking import decode
from spec.vectors import generate
from spec.vectors.making import examples
from spec.vectors.making.values import pack
from spec.vectors.making.vector import Vector
from tests.spec.vectors import FOLDER, ROOT, SPEC


@pytest.fixture(scope="module")
def made() -> list[Vector]:
    return generate.all_vectors()


def test_regenerating_gives_the_same_bytes(made: list[Vector], tmp_path: Path) -> None:
    generate.write_vectors(made, tmp_path)
    for kind in ("valid", "invalid"):
        names = {path.name for path in (FOLDER / kind).iterdir()}
        assert {path.name for path in (tmp_path / kind).iterdir()} == names
        differing = [
            name for name in names if generate.load(FOLDER / kind / name) != generate.load(tmp_path / kind / name)
        ]
        assert not differing


def test_the_list_of_clauses_is_current(made: list[Vector]) -> None:
    duties = json.loads((FOLDER / "duties.json").read_text(encoding="utf-8"))
    assert generate.CLAUSES.read_text(encoding="utf-8") == generate.clauses(made, duties)


def test_the_examples_in_the_spec_are_current() -> None:
    text = SPEC.read_text(encoding="utf-8")
    for name, dump in generate.examples().items():
        assert generate.between_marks(text, dump, name) == text


def test_the_examples_in_the_spec_are_read_by_the_library() -> None:
    data, stored = examples.chunk()
    decoded = bytearray(len(data))
    decode_chunk(stored, memoryview(decoded), DTYPES["F32"].split, member="net.safetensors", tensor="w")
    assert decoded == data == struct.pack("<2f", 0.5, -2.0)
    tree = decode(pack(examples.TREE))
    assert tree == {
        "lr": 0.1,
        "betas": (0.9, 0.999),
        "exp_avg": TensorRef("exp_avg"),
        "device": Typed("torch.device", "cuda:0"),
    }


def test_the_spec_folder_never_imports_the_library() -> None:
    for path in (ROOT / "spec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in ("ckptfmt", "ckptfmt_cli")]
