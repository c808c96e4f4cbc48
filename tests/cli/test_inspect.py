"""`inspect` with its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from tests.cli.conftest import NOW, Golden, invoke


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a checkpoint of a small network, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    net: dict[str, Any] = {}
    for layer in range(4):
        net[f"layers.{layer}.attn.weight"] = rng.standard_normal((8, 8)).astype(np.float32)
        net[f"layers.{layer}.attn.bias"] = np.zeros(8, np.float32)
    net["head.weight"] = np.array([1, np.nan, np.inf, 0, -3], np.float32)
    net["head.steps"] = np.array(7)
    optimizer = {"state": {0: {"exp_avg": rng.standard_normal(64)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    ckptfmt.save({"net": net, "optimizer": optimizer}, "a.ckptfmt", created=NOW)
    return "a.ckptfmt"


def table(*arguments: str) -> list[str]:
    """Return the lines of the table of tensors."""
    result = invoke("inspect", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    blocks = result.stdout.split("\n\n")
    return blocks[-2].splitlines()


def test_inspect_tree(golden: Golden, path: str) -> None:
    golden("inspect-tree.txt", table("--tree", path))


def test_inspect_stats(golden: Golden, path: str) -> None:
    golden("inspect-stats.txt", table("--stats", path))


def test_inspect_tensor(golden: Golden, path: str) -> None:
    golden("inspect-tensor.txt", invoke("inspect", "--tensor", "layers.0.attn.weight", path).stdout.splitlines())


def test_tensors_can_be_chosen_and_sorted(path: str) -> None:
    *rows, match = table("--filter", "*.bias", path)[1:]
    assert [row.split()[1] for row in rows] == [f"layers.{layer}.attn.bias" for layer in range(4)]
    assert match.startswith("4 of 11 ")
    assert [line.split()[2] for line in table("--dtype", "i64", path)[1:-1]] == ["I64"]
    assert [line.split()[:3] for line in table("--filter", "nothing", path)] == [["0", "of", "11"]]
    assert table("--sort", "size", path)[1].split()[:2] == ["optimizer", "state.0.exp_avg"]
    assert invoke("inspect", "--sort", "age", path).exit_code == 2


def test_json_holds_what_was_asked_for(path: str) -> None:
    document = json.loads(invoke("inspect", "--json", "--tree", "--stats", "--filter", "*.bias", path).stdout)
    assert len(document["tensors"]) == len(document["stats"]) == 4
    assert document["tree"][0]["children"][0]["name"] == "layers.{0..3}.attn"
    assert document["totals"]["tensors"] == 11
    values = json.loads(invoke("inspect", "--json", "--tensor", "head.weight", path).stdout)
    assert (values["report"], values["values"]) == ("tensor/1", [1.0, "NaN", "Infinity", 0.0, -3.0])


def test_a_tensor_that_is_not_there_is_1_and_close_names_are_shown(path: str) -> None:
    result = invoke("inspect", "--tensor", "head.weights", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'head.weights'" in result.stderr
    assert "net.head.weight" in result.stderr.replace("'head.weights'", "")


@pytest.mark.parametrize(
    "options",
    [["--pickle-imports", "--tree"], ["--tensor", "head.steps", "--stats"], ["--html", "out.html", "--json"]],
    ids=" ".join,
)
def test_an_option_that_would_be_ignored_is_refused(path: str, options: list[str]) -> None:
    result = invoke("inspect", *options, path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert options[0] in result.stderr
    assert options[-1] in result.stderr
    assert not Path("out.html").exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz"])
def test_other_formats(tmp_path: Path, name: str) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = {"w": np.arange(3.0)}
    if name.endswith("npz"):
        np.savez(tmp_path / name, w=tensors["w"])
    else:
        safetensors.save_file(tensors, tmp_path / name)
    result = invoke("inspect", "--json", tmp_path / name)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"]["resume"]["answer"] == "warm-start"
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    assert invoke("inspect", tmp_path / name).exit_code == 1
