"""A vector: one file with what a reader has to make of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spec.vectors.making.container import File, Member, content

SPEC = Path(__file__).resolve().parents[2] / "ckptfmt-1.md"
BIG = 128 << 10  # longer files are stored compressed by gzip


@dataclass(frozen=True)
class Vector:
    """A file and its sidecar.

    Attributes:
        name: Name of the file, without extension.
        description: What is special about the file.
        clauses: Clauses of the spec that the vector shows or breaks.
        data: The file.
        problem: Problem code, None for a valid file.
        also: Other codes that a reader may name: one wrong value can break two clauses.
        member: Member that a reader has to name.
        tensor: Tensor that a reader has to name.
        content: What a valid file holds.
    """

    name: str
    description: str
    clauses: Sequence[str]
    data: bytes
    problem: str | None = None
    also: Sequence[str] = ()
    member: str | None = None
    tensor: str | None = None
    content: dict[str, Any] | None = None

    @property
    def folder(self) -> str:
        """Name of the directory for vectors of this outcome."""
        return "valid" if self.problem is None else "invalid"

    @property
    def file_name(self) -> str:
        """Name of the file in its directory."""
        return f"{self.name}.ckptfmt{'.gz' if len(self.data) > BIG else ''}"

    def sidecar(self, kinds: dict[str, str]) -> dict[str, Any]:
        """Return what the sidecar says."""
        optional = {
            "also": list(self.also) or None,
            "member": self.member,
            "tensor": self.tensor,
            "content": self.content,
        }
        return {
            "description": self.description,
            "clauses": list(self.clauses),
            "outcome": self.folder,
            "problem": self.problem,
            "kind": None if self.problem is None else kinds[self.problem],
            **{key: shortened(value) for key, value in optional.items() if value is not None},
        }


def valid(name: str, description: str, clauses: str, file: File) -> Vector:
    """Make a valid vector; its content follows from how the file is made."""
    data = file.encode()
    return Vector(name, description, clauses.split(), data, content=content(file, data))


def invalid(
    slug: str,
    description: str,
    problem: str,
    file: File | bytes | Sequence[Member],
    *,
    clauses: str = "",
    also: str = "",
    member: str | None = None,
    tensor: str | None = None,
) -> Vector:
    """Make an invalid vector. The slug begins with the clause that is broken; `clauses` names further ones."""
    data = file if isinstance(file, bytes) else file.encode() if isinstance(file, File) else File(file).encode()
    broken = [slug.partition("-")[0], *clauses.split()]
    return Vector(slug, description, broken, data, problem, also.split(), member, tensor)


def problem_kinds(spec: str) -> dict[str, str]:
    """Return code and kind of every problem in section 18 of the spec's text."""
    section = spec[spec.index("## 18 ") : spec.index("## A ")]
    rows = re.findall(r"^\| (`.+`) \| (\w+) \|", section, re.MULTILINE)
    return {code: kind for codes, kind in rows for code in re.findall(r"`([a-z0-9-]+)`", codes)}


def shortened(value: Any) -> Any:
    """Write long strings and arrays that repeat something as `{"repeat": ..., "times": ...}`."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        if len(value) > 1000 and value.count(value[0]) == len(value):
            return {"repeat": value[:1], "times": len(value)}
        return [shortened(item) for item in value]
    if isinstance(value, str) and len(value) > 1000:
        period = next((n for n in range(1, 100) if len(value) % n == 0 and value == value[:n] * (len(value) // n)), 0)
        return {"repeat": value[:period], "times": len(value) // period} if period else value
    return value


def dump(value: Any, depth: int = 0) -> str:
    """Encode JSON with a line for each item of the upper levels, and each deeper value in one line."""
    if depth > 5 or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=True)
    compact = json.dumps(value, ensure_ascii=True)
    if len(compact) + 2 * depth <= 100:
        return compact
    inner, outer = "\n" + "  " * (depth + 1), "\n" + "  " * depth
    if isinstance(value, list):
        return "[" + ",".join(inner + dump(item, depth + 1) for item in value) + outer + "]"
    items = (f"{json.dumps(key)}: {dump(item, depth + 1)}" for key, item in value.items())
    return "{" + ",".join(inner + item for item in items) + outer + "}"
