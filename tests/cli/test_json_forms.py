"""The JSON form of every report is documented, and every command that reports something has one."""

from __future__ import annotations

import pytest

from ckptfmt_cli import main as command_line
from docs import json_forms
from tests.cli.conftest import invoke


def test_the_page_is_up_to_date() -> None:
    assert json_forms.PAGE.read_text(encoding="utf-8") == json_forms.page(), "run `make docs` to write the page anew"


@pytest.mark.parametrize("command", sorted(set(command_line._COMMANDS) - {"completion"}))
def test_every_command_that_reports_takes_json(command: str) -> None:
    assert "--json" in invoke(command, "--help").stdout
