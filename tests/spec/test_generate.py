"""The generator makes what is committed, and shares no code with the library."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from spec.vectors import generate
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


def test_the_annotated_file_in_the_spec_is_current() -> None:
    text = SPEC.read_text(encoding="utf-8")
    assert generate.between_marks(text, generate.hex_dump()) == text
    assert generate.between_marks(text, generate.identity_dump(), "identity") == text


def test_the_spec_folder_never_imports_the_library() -> None:
    for path in (ROOT / "spec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in ("ckptfmt", "ckptfmt_cli")]
