"""Values that differ between ranks, in inspect, diff and export: reported, and rank 0's alone only where one fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import ckptfmt
from ckptfmt import PerRank
from ckptfmt._core.interop.base import RankedValue
from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt._core.ops.conversion.export import export
from ckptfmt._core.ops.inspection.component_roles import Role
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt._core.ops.inspection.resumable import Resumable

WEIGHTS = {"w": np.arange(4.0), "avg": np.full(2, 1.0)}
RANDOM = {"python": (3, (1, 2), None), "torch": np.zeros(4, np.uint8)}
PLACE = {"step": 7, "epoch": 1, "loader": None, "pass": None}


def state(rank_1: dict[str, Any] | None = None, *, lr: object = 0.5) -> dict[str, Any]:
    """Return the state of a job of two ranks, in which rank 1 has these buffers."""
    buffers = {"avg": np.full(2, 5.0)} if rank_1 is None else rank_1
    return {
        "net": {"w": WEIGHTS["w"], **{name: PerRank((WEIGHTS[name], value)) for name, value in buffers.items()}},
        "optimizer": {"state": {}, "param_groups": [{"lr": lr, "momentum": 0, "params": [0]}]},
        "rng": PerRank((RANDOM, RANDOM)),
        "progress": PerRank((PLACE, {**PLACE, "loader": {}})),
    }


@pytest.fixture
def ranked(tmp_path: Path) -> Path:
    path = tmp_path / "ranked.ckptfmt"
    ckptfmt.save(state(lr=PerRank((0.5, 0.25))), path, step=7)
    return path


def test_inspect_tells_what_differs_and_all_else_of_rank_0(ranked: Path) -> None:
    report = inspect_file(ranked)
    places = ["net.avg", "optimizer.param_groups[0].lr", "rng", "progress"]
    assert report.state.per_rank == tuple(RankedValue(place, 2) for place in places)
    assert [component.role for component in report.components] == [
        Role.WEIGHTS,
        Role.OPTIMIZER,
        Role.RANDOM,
        Role.PROGRESS,
    ]
    assert report.state.resume.answer is Resumable.EXACTLY
    assert report.state.optimizers[0].values("lr") == (0.5,)
    assert report.state.places[0].step == 7
    assert report.state.random[0].generators == ("python", "torch")
    assert report.to_json()["state"]["per_rank"][0] == {"place": "net.avg", "ranks": 2}  # type: ignore[index]  # JSON


def test_diff_names_the_rank(ranked: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ckptfmt"
    changed = state({"avg": np.full(2, 6.0)}, lr=PerRank((0.5, 0.125)))
    ckptfmt.save({**changed, "progress": PerRank((PLACE, PLACE))}, other, step=7)
    report = diff_files(ranked, other)
    assert [(change.place, change.before, change.after) for change in report.values] == [
        ("optimizer.param_groups[0].lr of rank 1", 0.25, 0.125),
        ("progress of rank 1.loader", {}, None),
    ]
    assert [change.before.name for change in report.tensors if change.before is not None] == ["avg.1"]
    assert not diff_files(ranked, ranked).values


@pytest.mark.parametrize("form", ["net.safetensors", "net.npz", "net"])
def test_formats_of_one_state_get_rank_0s_under_the_plain_name(ranked: Path, tmp_path: Path, form: str) -> None:
    target = tmp_path / form
    report = export(ranked, target, component="net", check=True)
    (note,) = report.findings.notes
    assert "net.avg" in note
    assert report.compared == 2
    if form.endswith(".npz"):
        found = dict(np.load(target))
    else:
        found = safetensors.numpy.load_file(target if target.is_file() else target / "model.safetensors")
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in WEIGHTS.items()
    }


def test_a_pth_gets_rank_0s_of_all_components(ranked: Path, tmp_path: Path) -> None:
    target = tmp_path / "all.pth"
    report = export(ranked, target, check=True)
    assert len([note for note in report.findings.notes if "rank 0" in note]) == 4
    found = torch.load(target, weights_only=True)
    assert found["net"]["avg"].tolist() == WEIGHTS["avg"].tolist()
    assert found["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert found["rng"]["python"] == RANDOM["python"]
    assert report.compared == 3  # w, avg, and the state of the generator of PyTorch


def test_a_name_that_is_taken_stays_that_of_another(tmp_path: Path) -> None:
    path, target = tmp_path / "a.ckptfmt", tmp_path / "a.safetensors"
    tree = {"a": PerRank(({"b": np.zeros(1)}, {})), "a.b": np.ones(1)}
    ckptfmt.save({"net": tree}, path)
    export(path, target, component="net", check=True)
    found = {name: value.tolist() for name, value in safetensors.numpy.load_file(target).items()}
    assert found["a.b"] == [1.0]
    assert sorted(map(tuple, found.values())) == [(0.0,), (1.0,)]


def test_a_checkpoint_that_is_rewritten_keeps_all_ranks(ranked: Path, tmp_path: Path) -> None:
    ckptfmt.convert(ranked, tmp_path / "b.ckptfmt", codec="zstd", check=True)
    assert ckptfmt.load(tmp_path / "b.ckptfmt", rank=1)["net"]["avg"].tolist() == [5.0, 5.0]
