"""Make the vectors again, with their sidecars, clauses.json, and the examples in the spec.

    python spec/vectors/generate.py

Run it in the project's own environment. It uses `struct` and never ckptfmt; the same bytes come out every time.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from spec.vectors.making.annotate import annotated, annotated_identity
from spec.vectors.making.examples import tree_dump, zstd_dump
from spec.vectors.making.invalid_container import all_container
from spec.vectors.making.invalid_index import all_index
from spec.vectors.making.invalid_members import all_members
from spec.vectors.making.invalid_safetensors import all_safetensors
from spec.vectors.making.invalid_typed import all_typed
from spec.vectors.making.invalid_values import all_values
from spec.vectors.making.invalid_zstd import all_zstd
from spec.vectors.making.limits import all_limits
from spec.vectors.making.valid import all_valid, example
from spec.vectors.making.valid_values import all_valid_values
from spec.vectors.making.vector import SPEC, Vector, dump, problem_kinds

HERE = Path(__file__).resolve().parent
CLAUSES = HERE / "clauses.json"
BEGIN, END = "<!-- made by generate.py: begin{} -->\n", "<!-- made by generate.py: end{} -->\n"


def all_vectors() -> list[Vector]:
    """Return every vector.

    Raises:
        ValueError: Two vectors have one name.
    """
    valid = (all_valid, all_valid_values, all_limits)
    invalid = (all_container, all_index, all_members, all_zstd, all_safetensors, all_values, all_typed)
    vectors = [vector for module in (*valid, *invalid) for vector in module()]
    names = [vector.name for vector in vectors]
    if len(set(names)) < len(names):
        raise ValueError(f"names that stand twice: {sorted(name for name in set(names) if names.count(name) > 1)}")
    return vectors


def write_vectors(vectors: Iterable[Vector], folder: Path) -> None:
    """Write files and sidecars to folder, and remove those of vectors that are no more."""
    kinds = problem_kinds(SPEC.read_text(encoding="utf-8"))
    written = set()
    for vector in vectors:
        target = folder / vector.folder / vector.file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or load(target) != vector.data:
            compressed = target.suffix == ".gz"
            target.write_bytes(gzip.compress(vector.data, mtime=0) if compressed else vector.data)
        sidecar = folder / vector.folder / f"{vector.name}.json"
        sidecar.write_text(dump(vector.sidecar(kinds)) + "\n", encoding="utf-8")
        written |= {target, sidecar}
    for kind in ("valid", "invalid"):
        for path in set((folder / kind).iterdir()) - written:
            path.unlink()


def load(path: Path) -> bytes:
    """Return the bytes of a vector's file."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def clauses(vectors: Iterable[Vector], duties: dict[str, list[str]]) -> str:
    """Return the JSON text of what shows or breaks each clause: vectors, and tests for its duties."""
    rows: defaultdict[str, dict[str, list[str]]] = defaultdict(lambda: {"valid": [], "invalid": [], "duties": []})
    for vector in vectors:
        for clause in vector.clauses:
            rows[clause][vector.folder].append(vector.name)
    for clause in duties:
        rows[clause]["duties"] = duties[clause]
    ordered = sorted(rows, key=lambda clause: [int(part) for part in clause.split(".")])
    return json.dumps({clause: rows[clause] for clause in ordered}, indent=1) + "\n"


def examples() -> dict[str, str]:
    """Return the examples in the spec, by the name of their marks."""
    shown = {"": annotated(example()), "identity": annotated_identity(example())}
    shown |= {"zstd": zstd_dump(), "tree": tree_dump()}
    return {name: f"```\n{dump}\n```\n" for name, dump in shown.items()}


def between_marks(text: str, content: str, name: str = "") -> str:
    """Return text with other content between the two marks, which may have a name.

    Raises:
        ValueError: The marks are not there.
    """
    label = f" {name}" if name else ""
    begin, end = BEGIN.format(label), END.format(label)
    if begin not in text or end not in text:
        raise ValueError(f"no {begin.strip()} or no end of it")
    return text[: text.index(begin) + len(begin)] + content + text[text.index(end) :]


def update(path: Path, content: str, name: str = "") -> None:
    """Replace what stands between the two marks of a file."""
    text = path.read_text(encoding="utf-8")
    new = between_marks(text, content, name)
    if new != text:
        path.write_text(new, encoding="utf-8")


def main() -> int:
    """Make everything."""
    vectors = all_vectors()
    write_vectors(vectors, HERE)
    duties = json.loads((HERE / "duties.json").read_text(encoding="utf-8"))
    CLAUSES.write_text(clauses(vectors, duties), encoding="utf-8")
    for name, content in examples().items():
        update(SPEC, content, name)
    print(f"{len(vectors)} vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
