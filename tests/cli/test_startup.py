"""How long it takes until a command answers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import usual_environment
from tests.ops.sparse import sparse_checkpoint

_TIMES = 15

pytestmark = pytest.mark.slow  # not because it takes long: on a busy machine it says nothing


def fastest(*arguments: str) -> float:
    """Return the shortest of several times that a command took, in seconds."""
    command = [sys.executable, "-m", "ckptfmt_cli", *arguments]
    environment = {name: value for name, value in usual_environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        times.append(time.perf_counter() - begun)
    return min(times)


def test_help_is_there_at_once() -> None:
    assert fastest("--help") < 0.1


def test_inspect_takes_no_longer_for_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "large.ckptfmt"
    sparse_checkpoint(path, (16 << 30) // 4)
    assert fastest("inspect", str(path)) < 0.2
