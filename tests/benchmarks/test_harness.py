"""The benchmark's harness, with states so small that its figures mean nothing: that it measures, and tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ckptfmt.torch
from benchmarks import system
from benchmarks.contenders.base import state_of
from benchmarks.measuring import FLOOR, Sample
from benchmarks.tables import Results, render_tables
from benchmarks.warm_restore import measure
from benchmarks.workloads import WORKLOADS
from tests.torch.same import same


def test_it_measures_everything_and_writes_it_down(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--workloads", "tiny"]
    chosen = [
        "--contenders",
        "ckptfmt",
        "torch.save",
        "DCP",
        "--directory",
        str(tmp_path),
        "--output",
        str(tmp_path / "results"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *chosen], check=True, env=environment, capture_output=True, timeout=300)
    results = Results.from_json(json.loads((tmp_path / "results" / "results.json").read_text()))
    for name in ("ckptfmt", "torch.save", "DCP"):
        for metric in ("save_s", "restore_s", "resume_s", "loop_s"):
            assert results.values("tiny", name, metric)
        assert results.values("tiny", name, "exact") == {0: 1.0}
    assert results.values("tiny", "ckptfmt", "hold_s")
    assert results.values("tiny", FLOOR, "save_s")
    assert (tmp_path / "results" / "results.md").read_text() == render_tables(results)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_the_table_shows_medians_and_ratios_to_the_floor_of_the_round() -> None:
    samples = [
        Sample("tiny", who, "restore_s", number, value)
        for who, values in (("floor", (1.0, 2.0, 4.0)), ("a", (3.0, 4.0, 4.0)))
        for number, value in enumerate(values)
    ]
    results = Results({}, {}, "today", tuple(samples))
    assert results.ratio("tiny", "a", "restore_s") == 2.0
    assert "| a |  | 4.00 s (2.00x) |" in render_tables(results)


def test_a_reset_shows_what_is_not_restored() -> None:
    source, target = WORKLOADS["few"].make(1), WORKLOADS["few"].make(1)
    assert target.same_as(source)
    assert same(target.optimizer.state_dict(), source.optimizer.state_dict())
    target.reset()
    assert not target.same_as(source)
    assert not any(tensor.any() for tensor in target.tensors())


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="only some systems drop a file from their cache")
def test_what_is_warm_and_what_is_cold(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(1 << 20))
    system.warm(path)
    assert system.resident_share(path) == 1.0
    assert system.evict(path) == (system.resident_share(path) < 0.01)


def test_a_warm_restore_is_measured_beside_its_bound(tmp_path: Path) -> None:
    ckptfmt.torch.save(state_of(WORKLOADS["tiny"].make(1)), tmp_path / "a")
    times = measure("ckptfmt", "tiny", tmp_path / "a")
    assert times.exact
    assert min(times.first_s, times.next_s, times.bound.hash_s, times.bound.copy_s, times.bound.fused_s) > 0
    assert times.bound.seconds == times.bound.hash_s + times.bound.copy_s
