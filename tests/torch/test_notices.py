"""Notices reach stderr and the logger, and never raise."""

import logging
import os
import sys
from pathlib import Path

import pytest

from ckptfmt.torch.notices import LOGGER, notify
from tests.hostile_names import HOSTILE_FILE, is_harmless


def test_a_notice_is_one_line_on_stderr_and_one_record(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    notify("save failed")
    assert capsys.readouterr().err == "ckptfmt: save failed\n"
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
        ("ckptfmt", logging.WARNING, "save failed")
    ]


def test_details_are_lines_and_names_forge_none(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    notify(f"{HOSTILE_FILE}: not saved", details=["net.weight: shape", HOSTILE_FILE])
    told = capsys.readouterr().err
    assert told == f"ckptfmt: {caplog.records[0].getMessage()}\n"
    assert is_harmless(told)
    first, second, third, _ = told.split("\n")
    assert (first[:11], second, third[:3]) == ("ckptfmt: a\\", "  net.weight: shape", "  a")


def test_a_notice_never_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError(record)

    handler = Broken()
    LOGGER.addHandler(handler)
    try:
        with os.fdopen(os.open(tmp_path / "closed", os.O_CREAT | os.O_RDONLY), "r") as unwritable:
            monkeypatch.setattr(sys, "stderr", unwritable)
            notify("into a stream that cannot be written")
            monkeypatch.setattr(sys, "stderr", None)
            notify("into no stream at all")
    finally:
        LOGGER.removeHandler(handler)
