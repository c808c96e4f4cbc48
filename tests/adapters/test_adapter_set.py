"""The adapter of a value is found by its type, and nothing is imported for it that the program does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt._core.container.adapter_set import AdapterSet
from ckptfmt._core.container.numpy_adapter import NumpyAdapter
from ckptfmt._core.container.planning import make_metadata, plan_save
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.trees import NUMPY_ARRAY
from tests.adapters.cells import Cells, CellsAdapter

PACKAGE = Cells.__module__.partition(".")[0]


class Derived(Cells):
    """A kind of cells that its adapter knows by the class behind it."""


def test_an_adapter_is_loaded_when_a_value_of_its_package_is_met() -> None:
    loaded = []

    def load() -> CellsAdapter:
        loaded.append(1)
        return CellsAdapter()

    numpy = NumpyAdapter()
    adapters = AdapterSet(numpy, packages={PACKAGE: load})
    assert adapters.encoder_of(np.ndarray) is numpy
    assert adapters.encoder_of(int) is numpy
    assert not loaded
    for kind in (Cells, Derived, Cells):
        assert isinstance(adapters.encoder_of(kind), CellsAdapter)
    assert len(loaded) == 2  # once for each type


def structures_of(state: dict[str, Any], path: Path, adapters: AdapterSet) -> dict[str, object]:
    write_plan(path, plan_save(state, adapters, metadata=make_metadata(state)))
    with Checkpoint.open(path, adapters) as checkpoint:
        return {name: None if part.flat else part.structure() for name, part in checkpoint.items()}


def is_marked(value: object) -> bool:
    return isinstance(value, Typed) and value.name == NUMPY_ARRAY


@pytest.mark.parametrize("always_mark", [False, True])
def test_arrays_are_marked_beside_tensors_of_another_framework(tmp_path: Path, always_mark: bool) -> None:
    adapters = AdapterSet(CellsAdapter(), NumpyAdapter(), {PACKAGE: CellsAdapter}, always_mark=always_mark)
    cells, array = CellsAdapter().empty("F32", (2,))[0], np.ones(2, np.float32)
    state = {
        "alone": {"a": [array]},
        "cells": {"c": [cells]},
        "both": {"a": [array], "c": [cells]},
        "flat": {"a": array},
    }
    trees: Any = structures_of(state, tmp_path / "a.ckptfmt", adapters)
    assert is_marked(trees["alone"]["a"][0]) == always_mark
    assert (trees["flat"] is not None) == always_mark
    assert not is_marked(trees["cells"]["c"][0])
    assert is_marked(trees["both"]["a"][0])
    assert not is_marked(trees["both"]["c"][0])
    with Checkpoint.open(tmp_path / "a.ckptfmt", adapters) as checkpoint:
        back = checkpoint["both"].load()
        assert isinstance(back["a"][0], np.ndarray)
        assert isinstance(back["c"][0], Cells)


def test_each_door_takes_tensors_of_any_framework_and_gives_its_own(tmp_path: Path) -> None:
    state = {"part": {"tensor": [torch.ones(2)], "array": [np.ones(3)]}, "arrays": {"array": [np.ones(4)]}}
    ckptfmt.save(state, tmp_path / "a.ckptfmt")
    by_numpy, by_torch = ckptfmt.load(tmp_path / "a.ckptfmt"), ckptfmt.torch.load(tmp_path / "a.ckptfmt")
    assert isinstance(by_numpy["part"]["tensor"][0], np.ndarray)
    assert isinstance(by_torch["part"]["tensor"][0], torch.Tensor)
    assert isinstance(by_torch["part"]["array"][0], np.ndarray)
    assert isinstance(by_torch["arrays"]["array"][0], torch.Tensor)  # of no framework in particular
    ckptfmt.torch.save(state, tmp_path / "b.ckptfmt")
    assert isinstance(ckptfmt.torch.load(tmp_path / "b.ckptfmt")["arrays"]["array"][0], np.ndarray)


def test_arrays_are_saved_and_loaded_without_the_adapter_of_another_framework(tmp_path: Path) -> None:
    program = """
import sys
import numpy as np
import ckptfmt
ckptfmt.save({"net": {"w": np.ones(3)}, "more": [np.float32(1), memoryview(b"abc")]}, sys.argv[1])
ckptfmt.load(sys.argv[1])
print([name for name in sys.modules if name.partition(".")[0] == "torch" or name.startswith("ckptfmt._core.torch")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.ckptfmt")], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
