"""Notices reach stderr and the logger, and never raise."""

import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ckptfmt._core.training.notices import LOGGER, notify
from ckptfmt.torch import Checkpointer
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


@pytest.mark.parametrize("filters", ["ignore", "error", "default"])
def test_no_filter_of_warnings_hides_a_failed_save_or_makes_it_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], filters: str
) -> None:
    train_url = tmp_path / "run"
    ckpt = Checkpointer(train_url, {}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter(filters)  # type: ignore[arg-type]  # each of them is an action
        for _ in ckpt.epochs(1):
            for number in ckpt.batches(range(5)):
                if number == 1:
                    ckpt.wait()
                    shutil.move(train_url, tmp_path / "away")
                    train_url.touch()
                if number == 3:
                    ckpt.wait()
                    train_url.unlink()
                    shutil.move(tmp_path / "away", train_url)
                ckpt.step(loss="no number")  # type: ignore[arg-type]  # that is what is tried
    assert ckpt.global_step == 5
    told = capsys.readouterr().err
    assert [len(re.findall(rf"FAILED.* step {step}\b", told)) for step in range(1, 6)] == [0, 1, 1, 0, 0]
    assert "'loss'" in told


PROGRAM = """
import os, sys
from ckptfmt.torch import Checkpointer
ckpt = Checkpointer(sys.argv[1], {}, hang_timeout=60)
if sys.argv[2] == "closed":
    sys.stderr.close()
    os.close(2)
if sys.argv[2] == "gone":
    sys.stderr = sys.__stderr__ = None
if sys.argv[2] == "odd":
    sys.stderr = sys.__stderr__ = type("Odd", (), {"flush": lambda self: None})()
ckpt.resume()
for _ in ckpt.epochs(1):
    for number in ckpt.batches(range(3)):
        if number == 1:
            os.kill(os.getpid(), 15)
        ckpt.step()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to be caught")
@pytest.mark.parametrize("stderr", ["there", "closed", "gone", "odd"])
def test_a_training_needs_no_stderr(tmp_path: Path, stderr: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "run", stderr], stderr=subprocess.PIPE, check=False, text=True
    )
    assert done.returncode == 75
    assert [path.name for path in (tmp_path / "run").glob("ckpt*")] == ["ckpt-00000002-e0000.ckptfmt"]
    if stderr == "there":
        assert "exit code 75" in done.stderr


def test_a_failed_save_is_told_even_if_nobody_asks(tmp_path: Path) -> None:
    """The program ends without waiting for the save, or asking for it."""
    program = (
        "import shutil, sys; from ckptfmt.torch import Checkpointer; ckpt = Checkpointer(sys.argv[1], {});"
        "ckpt.resume(quiet=True); shutil.rmtree(sys.argv[1]); open(sys.argv[1], 'w').close(); ckpt.save()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "run"], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0
    assert re.search(r"FAILED.* step 0\b", done.stderr)
