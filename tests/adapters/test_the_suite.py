"""The suite of adapters passes one that is sound, and fails each one that has a fault."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ckptfmt.testing.adapters import AdapterTests
from tests.adapters.cells import FAULTY, Cells, CellsAdapter, Ratio


class CellsTests(AdapterTests):
    dtypes = ("I16", "F32")
    kind: type[CellsAdapter] = CellsAdapter

    @pytest.fixture
    def adapter(self) -> CellsAdapter:
        return self.kind()

    def layouts(self, tensor: Cells) -> dict[str, Cells]:
        return {"backwards": tensor.reversed()}

    def same_tensors(self, tensor: Cells) -> dict[str, Cells]:
        return {"another object": Cells(tensor.dtype, tensor.shape, tensor.memory, tensor.backwards)}

    def views(self, square: Cells) -> dict[str, Cells]:
        return {
            "flat": Cells(square.dtype, (16,), square.memory),
            "backwards": Cells(square.dtype, square.shape, square.memory, backwards=True),
        }

    def values(self) -> dict[str, Any]:
        return {"ratio": Ratio(2, 3)}

    def refused(self) -> dict[str, Any]:
        return {"nothing below": Ratio(2, 0)}


class TestCellsAdapter(CellsTests):
    """A sound adapter of a third framework."""


def test_every_fault_is_noticed() -> None:
    root = Path(__file__).parents[2]
    faulty = Path(__file__).with_name("faulty_adapters.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", str(faulty)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failed = set(re.findall(r"^FAILED \S+::Test(\w+)::", done.stdout, re.MULTILINE))
    assert failed == {kind.__name__ for kind in FAULTY}
