"""The suite, run over adapters that have a fault each. Not collected by itself: see `test_the_suite`."""

from __future__ import annotations

from tests.adapters.cells import FAULTY, CellsAdapter
from tests.adapters.test_the_suite import CellsTests


def tests_of(faulty: type[CellsAdapter]) -> type[CellsTests]:
    return type(f"Test{faulty.__name__}", (CellsTests,), {"kind": faulty})


for faulty in FAULTY:
    globals()[f"Test{faulty.__name__}"] = tests_of(faulty)
