from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import ckptfmt
from ckptfmt_cli import main as command_line

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RUN = "digits-7f3a2b"

Golden = Callable[[str, Iterable[str]], None]
Ckptfmt = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def golden() -> Golden:
    """Return a function that compares lines with a file in `golden/`.

    `UPDATE_GOLDEN=1 .venv/bin/pytest tests/cli` writes the files anew; the difference is then for a person to read.
    """

    def compare(name: str, lines: Iterable[str]) -> None:
        path = Path(__file__).parent / "golden" / name
        text = "".join(f"{line}\n" for line in lines)
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes the file anew, if this is right"

    return compare


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """Return a directory with three sound checkpoints of a run, a cut one, one with damaged data, and a leftover."""
    directory = tmp_path / "run"
    directory.mkdir()
    for epoch in (1, 2, 3):
        ckptfmt.save(
            state(epoch),  # by name, 15 would come before 5
            directory / f"ckpt_{epoch * 5}.ckptfmt",
            run_id=RUN,
            step=epoch * 500,
            metrics={"val_loss": 1 / epoch},
            created=NOW - timedelta(hours=4 - epoch),
        )
    data = (directory / "ckpt_15.ckptfmt").read_bytes()
    (directory / "cut.ckptfmt").write_bytes(data[: len(data) // 2])
    damaged = bytearray(data)
    damaged[data.index(weights(3).tobytes())] ^= 1
    (directory / "flipped.ckptfmt").write_bytes(damaged)
    (directory / ".ckpt_20.ckptfmt.0123abcd-0123456789abcdef.tmp").write_bytes(data[:5000])
    return directory


def weights(epoch: int) -> Any:
    return np.arange(48, dtype=np.float32).reshape(3, 16) + epoch


def state(epoch: int) -> dict[str, Any]:
    net = {"conv.weight": weights(epoch), "conv.bias": np.full(3, 0.25, np.float32)}
    return {"net": net, "optimizer": {"state": {0: {"exp_avg": weights(epoch) * 2}}, "lr": 0.001}, "epoch": epoch}


def invoke(*arguments: str | Path) -> Result:
    """Run `ckptfmt` in this process, without a terminal."""
    return CliRunner().invoke(command_line.cli, [str(argument) for argument in arguments])


def usual_environment() -> dict[str, str]:
    """Return the environment without what changes how streams behave."""
    unusual = {"COLUMNS", "NO_COLOR", "PYTHONUNBUFFERED", "PYTHONIOENCODING"}
    return {name: value for name, value in os.environ.items() if name not in unusual}


@pytest.fixture
def run(tmp_path: Path) -> Ckptfmt:
    """Return a function that runs `ckptfmt` as a process of its own, in `tmp_path`."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**usual_environment(), "PYTHONUTF8": "1", "PYTHONWARNINGS": "error", **options.pop("env", {})}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, "-m", "ckptfmt_cli", *arguments]
        return subprocess.run(command, check=False, text=True, cwd=tmp_path, env=environment, timeout=60, **streams)

    return run
