"""The library writes each valid vector's members and components as they are there, given what they hold."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

import ckptfmt
from ckptfmt._core.container.numpy_adapter import NUMPY_ADAPTERS
from ckptfmt._core.container.reader import Checkpoint
from tests.spec.answers import described
from tests.spec.vectors import VALID, Vector

# What NumPy has no array for, and what no state of the library can hold: text metadata.
BEYOND = {"dtypes-packed", "shapes-huge-but-empty", "text-metadata", "header-two-chunks"}
# Bytes of true, which are written as 1 (9.8).
OTHER_FORM = {"bool-bytes"}
# Trees whose tensors have names that are not their paths, as 11.4 has them.
OTHER_NAMES = ("typed-torch-sparse", "typed-numpy-", "typed-complex-", "typed-unknown", "references-", "tied-weights")


def _is_writable(vector: Vector) -> bool:
    """Whether a writer makes such files of their content: no codec that leaves it free, and no breach of 1.2."""
    members = vector.content["members"]
    return (
        "1.2" not in vector.sidecar["clauses"]
        and vector.name not in BEYOND | OTHER_FORM
        and not (vector.name.startswith(OTHER_NAMES) and _has_tensors(vector))
        and all(
            member["codec"] == "none" and member["name"].endswith((".msgpack", ".safetensors")) for member in members
        )
    )


def _has_tensors(vector: Vector) -> bool:
    return any(component["tensors"] for component in vector.content["components"].values())


WRITABLE = [vector for vector in VALID if _is_writable(vector)]


@pytest.mark.parametrize("vector", WRITABLE, ids=lambda vector: vector.name)
def test_what_a_vector_holds_is_written_as_it_is_there(vector: Vector, tmp_path: Path) -> None:
    with Checkpoint.open(vector.file(tmp_path), NUMPY_ADAPTERS) as checkpoint:
        state = checkpoint.load()
    ckptfmt.save(state, tmp_path / "again.ckptfmt")
    content = described(BytesIO((tmp_path / "again.ckptfmt").read_bytes()))
    assert content["members"] == vector.content["members"]
    assert content["components"] == vector.content["components"]
