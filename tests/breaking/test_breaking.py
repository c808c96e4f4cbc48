"""The short form of `make break`; the whole of it is slow."""

from __future__ import annotations

import json
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.breaking.file_systems import may_mount
from tests.breaking.injection import compiler, run_with_errors
from tests.breaking.loops import LOOPS
from tests.torture.campaign import Train, kill_in_a_save_or_anywhere, torture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits, preloading and SIGKILL as Linux has them")
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler is installed to build the shim")


@needs_compiler
@pytest.mark.parametrize("what", ["saves", "resumes"])
def test_an_error_at_some_file_operation_breaks_no_promise(what: str) -> None:
    found = run_with_errors("tests.breaking.errors", what, "--errors", "EIO,EACCES", "--every", "37")
    assert (found["calm"], found["broken"]) == ("", [])
    assert found["hit"] >= found["cases"] / 2, "hardly an error was injected: the test tests nothing"


@pytest.mark.slow
def test_limits_break_no_promise() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.breaking.limits"], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    assert found["broken"] == []
    assert all(found["cases"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["killed_ranks", "file_systems", "foreign_files"])
def test_ranks_file_systems_and_foreign_files_break_no_promise(name: str) -> None:
    if name == "file_systems" and not may_mount():
        pytest.skip("file systems cannot be mounted here")
    done = subprocess.run([sys.executable, "-m", f"tests.breaking.{name}"], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    assert found["broken"] == []
    assert found["cases"]


@pytest.mark.parametrize("loop", [pytest.param(it, id=it.__name__, marks=pytest.mark.slow) for it in LOOPS])
def test_loops_of_any_shape_end_the_same_however_often_they_are_killed(
    tmp_path: Path, context: ForkServerContext, loop: Train
) -> None:
    figures = torture(context, tmp_path, 2, kill_in_a_save_or_anywhere, loop)
    assert figures.clean, figures
    assert figures.disturbed
