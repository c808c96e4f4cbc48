"""A Checkpointer can be made of the training core where no framework is: with NumPy alone, torch not importable."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ckptfmt
from tests.training.numpy_training import STEPS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

PROGRAM = "import sys; sys.modules['torch'] = None; from tests.training.numpy_training import main; main()"


def train(directory: Path, signal_step: int = 0, number: int = 0, loop: str = "epochs") -> tuple[int, list[str]]:
    """Train in a process that signals itself in a step; return its exit code, and the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory), str(signal_step), str(number), loop],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("loop", ["epochs", "steps"])
def test_a_numpy_training_is_killed_and_resumes_bit_exactly(tmp_path: Path, loop: str) -> None:
    run = tmp_path / "run"
    assert train(run, 9, signal.SIGKILL, loop) == (-signal.SIGKILL, ["0"])
    code, lines = train(run, 17, signal.SIGTERM, loop)
    # The save of a step is durable before that of the next one begins: eight steps were whole when it was killed.
    assert (code, lines) in [(75, ["7"]), (75, ["8"])]
    assert train(run, 25, signal.SIGKILL, loop) == (-signal.SIGKILL, ["17"])  # nothing is lost after a request to leave
    resumed, calm = train(run, loop=loop), train(tmp_path / "calm", loop=loop)
    assert resumed[1][0] in ("23", "24")
    assert calm[1][0] == "0"
    assert (resumed[0], resumed[1][-1]) == (calm[0], calm[1][-1])
    assert resumed[1][-1].startswith(f"{STEPS} ")
    assert resumed[1][-1].endswith(" []")


def test_its_checkpoints_are_those_of_any_run(tmp_path: Path) -> None:
    train(tmp_path)
    paths = sorted(tmp_path.glob("*.ckptfmt"))
    assert len(paths) == 3  # retention works, too
    with ckptfmt.open(paths[-1]) as checkpoint:
        assert checkpoint.verify() == ()
        assert (checkpoint.metadata.step, set(checkpoint)) == (STEPS, {"net", "rng", "progress"})
        assert checkpoint.metadata.generation == 1
