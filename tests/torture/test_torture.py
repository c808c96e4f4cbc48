"""The short form of `make torture`."""

from __future__ import annotations

import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.torture.campaign import kill_in_a_save_or_anywhere, tell_to_leave_anywhere, torture
from tests.torture.operations import kill_at

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


def test_kills_lose_nothing_but_the_steps_since_the_last_save(tmp_path: Path, context: ForkServerContext) -> None:
    figures = torture(context, tmp_path, 5, kill_in_a_save_or_anywhere)
    assert figures.clean, figures
    assert figures.in_save, "no save was hit: the test tests nothing"


def test_requests_to_leave_lose_nothing(tmp_path: Path, context: ForkServerContext) -> None:
    figures = torture(context, tmp_path, 3, tell_to_leave_anywhere)
    assert figures.clean, figures
    assert figures.disturbed
    assert figures.lost_steps == 0


def test_a_kill_at_any_file_operation_loses_nothing_that_was_saved(tmp_path: Path, context: ForkServerContext) -> None:
    figures = kill_at(context, tmp_path, range(1, 1000, 17))  # `make torture` takes each
    assert figures.failed == ()
    assert figures.operations >= 10
