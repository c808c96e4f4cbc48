"""Errors of the operating system, at every file operation, below Python."""

from __future__ import annotations

import pytest

from tests.breaking.injection import ERRNOS, compiler, run_with_errors

pytestmark = [pytest.mark.slow, pytest.mark.skipif(compiler() is None, reason="needs a C compiler on Linux")]


@pytest.mark.parametrize("error", ERRNOS)
def test_no_error_in_a_save_ends_the_training_or_costs_a_checkpoint(error: str) -> None:
    found = run_with_errors("tests.breaking.errors", "saves", "--errors", error)
    assert found["calm"] == ""
    assert found["hit"] == found["cases"] > 500
    assert found["broken"] == []
