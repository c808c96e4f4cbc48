"""With few threads or none to be had, all comes out right, only slower: a real limit of threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and users as Linux has them")


WAYS = ("direct", "ordinary")


def outcome(room: int, scratch: Path, times: int) -> tuple[dict[str, Any], str]:
    """Return what the program found, and what it wrote to stderr."""
    command = [sys.executable, "-m", "tests.torch.with_few_threads", str(room), str(scratch), str(times)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), ended.stderr


def check(found: dict[str, Any]) -> None:
    assert not {what: wrong for what, wrong in found["loads"].items() if wrong}
    assert found["resumes"] == {"none": 0, "zstd": 0}
    assert set(found["trained"]) == {f"{way}, {codec}" for way in WAYS for codec in ("none", "zstd")}
    for trained in found["trained"].values():
        assert trained == {"steps": [1, 2, 3], "wrong": [], "error": ""}


@pytest.mark.parametrize("room", range(4))
def test_saves_loads_and_resumes_are_right_with_few_threads(tmp_path: Path, room: int) -> None:
    found, stderr = outcome(room, tmp_path, times=1)
    check(found)
    if room == 0:
        assert "hang_timeout" in stderr
    assert found["ways"]["ordinary"] == ["ordinary"]
    if "direct" not in found["ways"]["direct"]:
        pytest.skip("no direct writes here")


@pytest.mark.slow
@pytest.mark.parametrize("room", range(8))
def test_they_are_right_again_and_again(tmp_path: Path, room: int) -> None:
    check(outcome(room, tmp_path, times=50)[0])
