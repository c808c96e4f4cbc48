"""`diff`: what it shows, and which exit code it ends with."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import ckptfmt
from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt_cli.terminal import PLAIN, Terminal
from ckptfmt_cli.text import cells
from ckptfmt_cli.views.diff import diff_lines
from tests.cli.conftest import NOW, RUN, Golden, invoke, state, weights

Files = Callable[[dict[str, Any], dict[str, Any]], tuple[str, str]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Return a function that saves two states and returns the names of the files in the working directory."""
    monkeypatch.chdir(tmp_path)

    def save(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, str]:
        ckptfmt.save(before, "a.ckptfmt", run_id=RUN, step=900, metrics={"val_loss": 0.4}, created=NOW)
        ckptfmt.save(after, "b.ckptfmt", run_id=RUN, step=1000, metrics={"val_loss": 1 / 3}, created=NOW)
        return "a.ckptfmt", "b.ckptfmt"

    return save


def after() -> dict[str, Any]:
    net = {"conv.weight": weights(2), "head.bias": np.full(3, 0.25, np.float32), "new": np.zeros((2, 2))}
    optimizer = {"state": {0: {"exp_avg": weights(1).astype(np.float64)}}, "lr": 0.0005}
    return {"net": net, "optimizer": optimizer, "ema": {"w": weights(3)}}


def test_diff(golden: Golden, files: Files) -> None:
    golden("diff.txt", diff_lines(diff_files(*files(state(1), after())), PLAIN, everything=False))


def test_diff_of_values(golden: Golden, files: Files) -> None:
    report = diff_files(*files(state(1), after()), values=True)
    golden("diff-values.txt", diff_lines(report, PLAIN, everything=False))


def test_diff_of_the_same(golden: Golden, files: Files) -> None:
    golden("diff-same.txt", diff_lines(diff_files(*files(state(1), state(1))), PLAIN, everything=False))


def test_many_differences_are_cut_and_all_can_be_had(files: Files) -> None:
    many = {f"layer_{number}.weight": np.full(2, number) for number in range(100)}
    report = diff_files(*files({"net": many}, {"net": {name: value + 1 for name, value in many.items()}}))
    cut, whole = ("\n".join(diff_lines(report, PLAIN, everything=everything)) for everything in (False, True))
    assert (cut.count("layer_"), whole.count("layer_")) == (40, 100)
    assert " 60 " in cut
    assert "--all" in cut


def trained(step: int) -> dict[str, Any]:
    """Return the state of a training after a step; the optimizer records the names of its parameters."""
    names = ["embed.weight", *(f"blocks.{at}.{part}" for at in range(8) for part in ("fc.weight", "fc.bias"))]
    net = {name: np.full((4, 2) if name.endswith("weight") else 2, 1 + 0.5**step) for name in names}
    moments = {at: {"step": np.array(step, np.float32), "exp_avg": net[name] * step} for at, name in enumerate(names)}
    groups = [{"lr": 0.1, "params": [*range(len(names))], "param_names": [f"net.{name}" for name in names]}]
    python = random.Random(step).getstate()
    rng = {"python": python, "numpy": {"bit_generator": "PCG64", "state": {"state": step}}, "torch": np.ones(2)}
    return {"net": net, "optimizer": {"state": moments, "param_groups": groups}, "rng": rng, "dice": python}


def test_tensors_are_folded_by_module_and_generators_are_one_line(golden: Golden, files: Files) -> None:
    report = diff_files(*files(trained(1), trained(2)))
    golden("diff-folded.txt", diff_lines(report, PLAIN, everything=False))
    whole = "\n".join(diff_lines(report, Terminal(width=120), everything=True))
    assert "net.blocks.7.fc.weight exp_avg" in whole


def test_folded_tensors_are_as_far_apart_as_the_farthest(golden: Golden, files: Files) -> None:
    report = diff_files(*files(trained(1), trained(2)), values=True)
    golden("diff-folded-values.txt", diff_lines(report, PLAIN, everything=False))


def test_json_names_generators_and_parameters(files: Files) -> None:
    document = json.loads(invoke("diff", "--json", *files(trained(1), trained(2))).stdout)
    generators = {item["name"]: item["generators"] for item in document["components"]}
    assert generators == {"net": [], "optimizer": [], "rng": ["numpy", "python"], "dice": ["dice"]}
    parameters = {change["before"]["name"]: change["parameter"] for change in document["tensors"]}
    assert parameters["state.0.exp_avg"] == "net.embed.weight"
    assert parameters["embed.weight"] is None


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_hostile_file_moves_no_cursor_and_breaks_no_table(files: Files, width: int) -> None:
    hostile = "\x1b[2Jnet\nok"
    before = {"net": {hostile: np.zeros(1), "w" * 300: np.zeros(1)}, "c": {hostile: "\u202e" * 300}}
    changed = {"net": {hostile: np.ones(1), "w" * 300: np.ones(1)}, "c": {hostile: [hostile] * 99}}
    lines = diff_lines(diff_files(*files(before, changed)), Terminal(width=width), everything=True)
    assert all(line.isprintable() for line in lines)
    assert all(cells(line) <= width for line in lines)


def test_exit_codes(files: Files) -> None:
    one, other = files(state(1), after())
    assert invoke("diff", one, one).exit_code == 0
    assert invoke("diff", one, other).exit_code == 1
    assert invoke("diff", one, "missing").exit_code == 3
    assert invoke("diff", one).exit_code == 2
    Path("text").write_text("no checkpoint")
    assert invoke("diff", one, "text").exit_code == 1


def test_a_tolerance_makes_close_the_same(files: Files) -> None:
    one, other = files({"net": {"w": np.zeros(3)}}, {"net": {"w": np.full(3, 1e-7)}})
    assert invoke("diff", one, other).exit_code == 1
    result = invoke("diff", "--tolerance", "1e-6", one, other)
    assert result.exit_code == 0
    assert "1e-06" in result.stdout
    document = json.loads(invoke("diff", "--tolerance", "1e-6", "--json", one, other).stdout)
    assert (document["same"], document["resume"]["identical"]) == (True, False)
    assert invoke("diff", "--tolerance", "-1", one, other).exit_code == 2


def test_json_is_the_report(files: Files) -> None:
    document = json.loads(invoke("diff", "--json", "--values", *files(state(1), after())).stdout)
    assert (document["report"], document["same"]) == ("diff/1", False)


def test_across_formats(files: Files) -> None:
    one, _ = files({"net": state(1)["net"]}, after())
    safetensors.numpy.save_file(state(1)["net"], "a.safetensors")
    assert invoke("diff", "a.safetensors", one).exit_code == 0
