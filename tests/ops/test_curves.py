from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptfmt._core.ops.directory.curves import read_curves
from ckptfmt._core.ops.progress import Progress
from tests.ops.conftest import Save, flip_byte

RNG = np.random.default_rng(0)


def state(step: int, layers: int = 2) -> dict[str, Any]:
    net = {f"h.{layer}.weight": RNG.standard_normal(20) * step for layer in range(layers)}
    net |= {f"h.{layer}.bias": np.full(4, float(step)) for layer in range(layers)}
    optimizer = {"state": {0: {"exp_avg": np.ones(3)}}, "param_groups": [{"params": [0]}]}
    return {"net": {**net, "steps": np.array(step)}, "optimizer": optimizer}


@pytest.fixture
def directory(save: Save, tmp_path: Path) -> Path:
    """Return a directory with two runs, saved in another order than trained."""
    for run, step in [("a", 300), ("a", 100), ("b", 50), ("a", 200)]:
        metrics = {"loss": 1 / step, **({"acc": 0.5} if step == 200 else {})}
        save(f"{run}{step}.ckptfmt", state(step), run_id=run, step=step, metrics=metrics)
    return tmp_path


def test_metrics_go_over_the_steps_of_each_run(directory: Path) -> None:
    report = read_curves(directory)
    assert report.unit == "step"
    assert [run.run_id for run in report.runs] == ["a", "b"]
    curves = {curve.name: curve.points for curve in report.runs[0].metrics}
    assert curves == {"loss": ((100, 1 / 100), (200, 1 / 200), (300, 1 / 300)), "acc": ((200, 0.5),)}
    assert report.runs[0].norms == ()


def test_norms_are_those_of_the_weights_of_each_layer(save: Save, tmp_path: Path) -> None:
    found = {}
    for step in (1, 2):
        found[step] = state(step)
        save(f"{step}.ckptfmt", found[step], run_id="r", step=step)
    (run,) = read_curves(tmp_path, norms=True).runs
    assert [curve.name for curve in run.norms] == ["net.h.0", "net.h.1"]
    for layer, curve in enumerate(run.norms):
        for step, norm in curve.points:
            net = found[step]["net"]
            both = np.concatenate([net[f"h.{layer}.weight"], net[f"h.{layer}.bias"]])
            assert norm == pytest.approx(float(np.linalg.norm(both)), rel=1e-9)


def test_many_layers_are_told_by_the_modules_around_them(save: Save, tmp_path: Path) -> None:
    save("1.ckptfmt", state(1, layers=40), run_id="r", step=1)
    (run,) = read_curves(tmp_path, norms=True).runs
    assert [curve.name for curve in run.norms] == ["net.h"]


def test_what_cannot_be_read_is_left_out_and_told(directory: Path) -> None:
    (directory / "cut.ckptfmt").write_bytes(b"")
    flip_byte(directory / "a200.ckptfmt", np.full(4, 200.0).tobytes() * 2)
    report = read_curves(directory, run_id="a", norms=True)
    assert sorted(Path(path).name for path, _ in report.skipped) == ["a200.ckptfmt", "cut.ckptfmt"]
    (run,) = report.runs
    assert [place for place, _ in run.norms[0].points] == [100, 300]


def test_checkpoints_that_note_no_steps_go_by_epochs(save: Save, tmp_path: Path) -> None:
    for epoch in (1, 10, 2):
        save(f"{epoch}.ckptfmt", epoch=epoch, metrics={"loss": float(epoch)})
    report = read_curves(tmp_path)
    assert report.unit == "epoch"
    assert report.runs[0].metrics[0].points == ((1, 1.0), (2, 2.0), (10, 10.0))


def test_no_curve_goes_backwards_where_some_note_steps_and_some_only_epochs(save: Save, tmp_path: Path) -> None:
    for epoch, step in ((1, None), (2, 20), (3, None)):
        save(f"{epoch}.ckptfmt", state(1), step=step, epoch=epoch, metrics={"loss": 1.0})
    (run,) = read_curves(tmp_path, norms=True).runs
    for curve in (*run.metrics, *run.norms):
        assert [place for place, _ in curve.points] == [1, 2, 3]


def test_nothing_to_draw_is_told(save: Save, tmp_path: Path) -> None:
    assert read_curves(tmp_path).empty
    save("a.ckptfmt", metrics={"loss": 1.0})  # it does not say where in its training it was
    assert read_curves(tmp_path).empty


def test_progress_and_the_json_form(directory: Path, save: Save) -> None:
    seen: list[Progress] = []
    save("nan.ckptfmt", state(400), run_id="a", step=400, metrics={"loss": math.nan})
    document = json.loads(json.dumps(read_curves(directory, norms=True, progress=seen.append).to_json()))
    assert list(document) == ["report", "directory", "unit", "runs", "skipped"]
    assert document["runs"][0]["metrics"][0]["points"][-1] == [400, "NaN"]
    assert [item.done_bytes for item in seen] == sorted(item.done_bytes for item in seen)
    assert seen[-1].done_bytes <= seen[-1].total_bytes
