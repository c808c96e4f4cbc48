"""The committed vectors, as the tests use them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "spec" / "vectors"
SPEC = ROOT / "spec" / "ckptfmt-1.md"


@dataclass(frozen=True)
class Vector:
    """A vector on disk."""

    path: Path  # of the sidecar

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".json")

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """What the sidecar says; `content` is as short as it stands there."""
        sidecar: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return sidecar

    @property
    def problem(self) -> str | None:
        return self.sidecar["problem"]  # type: ignore[no-any-return]  # JSON

    @property
    def codes(self) -> set[str]:
        """Every problem code that is right for the file."""
        return {self.sidecar["problem"], *self.sidecar.get("also", [])}

    @cached_property
    def content(self) -> dict[str, Any]:
        """What a valid file holds, with everything that the sidecar shortens."""
        content: dict[str, Any] = expanded(self.sidecar["content"])
        return content

    def data(self) -> bytes:
        """The bytes of the file."""
        plain = self.path.with_name(f"{self.name}.ckptfmt")
        return plain.read_bytes() if plain.exists() else gzip.decompress(Path(f"{plain}.gz").read_bytes())

    def file(self, tmp_path: Path) -> Path:
        """A file with these bytes: the vector's own, or one in tmp_path."""
        plain = self.path.with_name(f"{self.name}.ckptfmt")
        if plain.exists():
            return plain
        unpacked = tmp_path / plain.name
        unpacked.write_bytes(self.data())
        return unpacked


def expanded(value: Any) -> Any:
    """Undo the shortening of a sidecar: `{"repeat": ..., "times": ...}`."""
    if isinstance(value, list):
        return [expanded(item) for item in value]
    if isinstance(value, dict) and value.keys() == {"repeat", "times"}:
        return expanded(value["repeat"]) * value["times"]
    if isinstance(value, dict):
        return {key: expanded(item) for key, item in value.items()}
    return value


def integers(rendered: list[Any]) -> list[int]:
    """Undo the rendering of large integers in a list."""
    return [int(number["int"], 16) if isinstance(number, dict) else number for number in rendered]


def _all(outcome: str) -> Iterator[Vector]:
    return (Vector(path) for path in sorted((FOLDER / outcome).glob("*.json")))


# These take hundreds of megabytes, or a minute, and are read by slow tests only.
_LARGE = {"limit-values", "limit-header", "limit-msgpack", "limit-index", "identity-chunks"}
VALID = [vector for vector in _all("valid") if vector.name not in _LARGE]
LARGE = [vector for vector in _all("valid") if vector.name in _LARGE]
INVALID = list(_all("invalid"))
SMALL = [vector for vector in VALID if vector.path.with_name(f"{vector.name}.ckptfmt").exists()]
EVERY_VALID = [*VALID, *(pytest.param(vector, marks=pytest.mark.slow) for vector in LARGE)]
