"""Spec, vectors, duties and problem codes agree: nothing that MUST be is without a proof."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from ckptfmt._problems import _KIND_OF
from spec.vectors.making.vector import problem_kinds
from tests.spec.vectors import FOLDER, INVALID, ROOT, SPEC, VALID

TEXT = SPEC.read_text(encoding="utf-8")
DUTIES: dict[str, list[str]] = json.loads((FOLDER / "duties.json").read_text(encoding="utf-8"))


def _clauses() -> dict[str, str]:
    """Number and text of every clause; its text reaches to the next clause, heading or explanation."""
    parts = re.split(r"^(?:\*\*(\d+\.\d+)\*\*|#+ .*|> Why\?.*)$|^\*\*(\d+\.\d+)\*\*", TEXT, flags=re.MULTILINE)
    clauses: dict[str, str] = {}
    for alone, inline, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if number := alone or inline:
            assert number not in clauses, f"clause {number} stands twice"
            clauses[number] = text
    return clauses


CLAUSES = _clauses()
MANDATORY = [number for number, text in CLAUSES.items() if "MUST" in text]


@cache
def _tests(path: Path) -> set[str]:
    """Names of the test functions of a file, those of classes with the name of the class in front."""
    if not path.exists():
        return set()
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        functions = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names |= {prefix + f.name for f in functions if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)}
    return names


def test_the_clauses_are_found() -> None:
    assert len(CLAUSES) == len(re.findall(r"^\*\*\d+\.\d+\*\*", TEXT, re.MULTILINE))
    assert len(MANDATORY) > 50


@pytest.mark.parametrize("clause", MANDATORY)
def test_a_clause_that_says_must_has_a_vector_or_a_test(clause: str) -> None:
    vectors = [vector.name for vector in VALID + INVALID if clause in vector.sidecar["clauses"]]
    assert vectors or clause in DUTIES


@pytest.mark.parametrize("clause", DUTIES)
def test_the_tests_of_duties_exist(clause: str) -> None:
    assert clause in MANDATORY
    missing = []
    for node in DUTIES[clause]:
        file, _, name = node.partition("::")
        if name not in _tests(ROOT / file):
            missing.append(node)
    assert not missing


def test_vectors_cite_clauses_that_exist() -> None:
    headings = set(re.findall(r"^#+ (\d+\.\d+) ", TEXT, re.MULTILINE))
    cited = {clause for vector in VALID + INVALID for clause in vector.sidecar["clauses"]}
    assert cited <= CLAUSES.keys() | headings


def test_problem_codes_of_spec_and_library_agree() -> None:
    assert {code: str(kind) for code, kind in _KIND_OF.items()} == problem_kinds(TEXT)


def test_every_problem_code_has_a_vector() -> None:
    assert {vector.problem for vector in INVALID} == problem_kinds(TEXT).keys()


def test_codes_in_clauses_are_those_of_the_table() -> None:
    in_clauses = set(re.findall(r"\[`([a-z0-9-]+)`\]", TEXT[: TEXT.index("## 18 ")]))
    assert in_clauses <= problem_kinds(TEXT).keys()


def test_sidecars_name_the_kind_of_their_problem() -> None:
    kinds = problem_kinds(TEXT)
    for vector in INVALID:
        assert vector.sidecar["kind"] == kinds[vector.sidecar["problem"]]
        assert vector.codes <= kinds.keys()
