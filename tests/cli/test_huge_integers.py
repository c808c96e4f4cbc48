"""Integers of more digits than Python writes: no command ends in an exception for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from tests.cli.conftest import invoke

HUGE = 10**5000
NET = {"w": np.ones(3, np.float32)}


def state(number: int) -> dict[str, Any]:
    group = {"lr": number, "betas": (number, 0.9), "params": [0]}
    return {
        "net": NET,
        "optimizer": {"param_groups": [group], "state": {0: {"step": number}}},
        "scheduler": {"last_epoch": number, "_last_lr": [number], "gamma": number},
        "progress": {"step": number, "epoch": number, "pass": {"consumed": number, "batches": number}},
        "rng": {"numpy": {"bit_generator": "MT19937", "state": number}},
        "other": {"a": number, "b": [number]},
    }


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ckptfmt.save(state(HUGE), "a.ckptfmt")
    ckptfmt.save(state(-HUGE), "b.ckptfmt")


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "a.ckptfmt"],
        ["inspect", "--tree", "a.ckptfmt"],
        ["inspect", "--html", "out.html", "a.ckptfmt"],
        ["diff", "a.ckptfmt", "b.ckptfmt"],
        ["diff", "--values", "--all", "a.ckptfmt", "b.ckptfmt"],
        ["ls", "."],
        ["convert", "--check", "a.ckptfmt", "c.ckptfmt"],
        ["extract", "a.ckptfmt", "-o", "members"],
    ],
    ids=" ".join,
)
def test_it_is_told(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == (1 if arguments[0] == "diff" else 0)


def test_in_json_it_is_text() -> None:
    document = json.loads(invoke("inspect", "--json", "a.ckptfmt").output)
    (optimizer,) = document["state"]["optimizers"]
    assert int(optimizer["groups"][0]["options"]["lr"], 16) == HUGE
    changes = json.loads(invoke("diff", "--json", "a.ckptfmt", "b.ckptfmt").output)["values"]
    assert {int(change["after"], 16) for change in changes if isinstance(change["after"], str)} == {-HUGE}
