"""The examples do what the README says of them. They are run as one runs them: in processes, with real kills."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ckptfmt.torch
from examples import demo
from tests.torch.tiny import final_state


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


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_gpt_that_counts_steps_is_killed_and_trained_on(tmp_path: Path) -> None:
    def command(run: str, steps: int) -> list[str]:
        options = [f"--max_steps={steps}", "--save_interval_steps=1", "--eval_interval=2"]
        return [sys.executable, str(demo.ROOT / "examples" / "steps.py"), "--train_url", str(tmp_path / run), *options]

    with subprocess.Popen(command("killed", 30), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 8 "):
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL
    for run, steps in (("killed", 10), ("killed", 12), ("calm", 12)):
        subprocess.run(command(run, steps), check=True, capture_output=True)
    ended, calm = (final_state(tmp_path / run) for run in ("killed", "calm"))
    assert ended.keys() == calm.keys()
    # Only one of the global generators is seeded, and in use.
    assert {name for name in calm if ended[name] != calm[name]} <= {"rng"}
