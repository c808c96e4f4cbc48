"""The examples do what the README says of them. They are run as one runs them: in processes, with real kills."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ckptfmt.torch
from examples import demo


def test_a_killed_training_ends_as_the_uninterrupted_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kills = [demo.Kill(random.randrange(1, 20), in_save=True), demo.Kill(random.randrange(24, 45), in_save=False)]
    assert demo.main(tmp_path / "demo", kills, epochs=2) == 0
    told = capfd.readouterr().out
    assert re.search(r"\b1 of them\b", told)
    assert re.search(r"identical .*\b46 steps", told)
    assert "ckpt-00000046-e0002.ckptfmt" in told


@pytest.mark.parametrize(
    ("weight", "loss", "differences"), [(0.0, b"0", []), (1.0, b"0", ["net"]), (1.0, b"1", ["net", "loss.log"])]
)
def test_the_demo_tells_what_differs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], weight: float, loss: bytes, differences: list[str]
) -> None:
    for name, value, line in (("one", 0.0, b"0"), ("two", weight, loss)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "loss.log").write_bytes(line)
        state = {"net": {"w": torch.tensor([value])}, "rng": {"n": 1}}
        ckptfmt.torch.save(state, tmp_path / name / "a.ckptfmt", step=1)
    assert demo.compare(tmp_path / "one", tmp_path / "two") == differences
    assert demo.show_comparison(tmp_path / "one", tmp_path / "two") == bool(differences)
    assert all(f"\n  {name}\n" in capfd.readouterr().out for name in differences[:1])


def test_the_plain_loop_runs_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, str(demo.ROOT / "examples" / "plain.py"), "--train_url", str(tmp_path), "--epochs"]
    told = [subprocess.run([*command, n], capture_output=True, text=True, check=True).stdout for n in ("1", "2")]
    assert [text.count("test accuracy") for text in told] == [1, 1]
