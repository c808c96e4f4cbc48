"""Real circumstances for the tests of storage: other processes, and a user to whom permissions apply."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NOBODY = 65534

Process = subprocess.Popen[str]


@pytest.fixture
def tmp_path_for_all() -> Iterator[Path]:
    """A new directory that every user may enter and change, unlike `tmp_path`."""
    result = Path(tempfile.mkdtemp())
    result.chmod(0o777)
    yield result
    result.chmod(0o777)
    shutil.rmtree(result)


@pytest.fixture
def no_privileges() -> Iterator[None]:
    """Run as a user to whom permissions apply: root may do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def begin_writer() -> Iterator[Callable[[Path, str], Process]]:
    """Start another process that has begun to publish a file and waits for a line to go on."""
    with contextlib.ExitStack() as running:

        def begin(path: Path, content: str) -> Process:
            script = Path(__file__).with_name("paused_writer.py")
            process = running.enter_context(
                subprocess.Popen(
                    [sys.executable, script, path, content],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            running.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            return process

        yield begin
