"""Names that others chose, in what a training tells of its resume, its start from others' weights, and its failures."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import ckptfmt
from ckptfmt import CkptfmtError, MismatchError
from ckptfmt.torch import Checkpointer
from tests.hostile_names import HOSTILE, HOSTILE_FILE, is_harmless

RUN = HOSTILE[:100]


class Net(nn.Module):
    """A module whose parameters have hostile names."""

    def __init__(self, *others: str) -> None:
        super().__init__()
        for name in (HOSTILE, *others):
            self.register_parameter(name.replace(".", ""), nn.Parameter(torch.ones(2)))


@pytest.fixture
def train_url(tmp_path: Path) -> Path:
    """Return a directory of a run with a hostile name, a cut checkpoint, and another run."""
    directory = tmp_path / HOSTILE_FILE
    ckpt = Checkpointer(directory, {"net": Net()}, background=False, run_id=RUN)
    ckpt.resume(quiet=True)
    ckpt.save()
    (written,) = directory.glob("ckpt-*.ckptfmt")
    written.rename(directory / f"{HOSTILE_FILE}.ckptfmt")
    data = (directory / f"{HOSTILE_FILE}.ckptfmt").read_bytes()
    (directory / f"cut{HOSTILE_FILE}.ckptfmt").write_bytes(data[:-3])
    ckptfmt.save({"net": {}}, directory / "other.ckptfmt", run_id=f"{HOSTILE}2", step=1)
    return directory


def test_the_report_of_a_resume_is_harmless(train_url: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Checkpointer(train_url, {"net": Net()}, run_id=RUN).resume()
    assert report.resumed
    assert report.skipped
    assert report.other_runs
    told = capsys.readouterr().err
    assert is_harmless(told), ascii(told)
    assert told.count("\n") == 5


def test_the_report_of_a_new_run_is_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Checkpointer(tmp_path / HOSTILE_FILE, {"net": Net()}, run_id=RUN).resume()
    assert is_harmless(capsys.readouterr().err)


def test_what_does_not_fit_is_told_harmlessly_and_a_line_each(train_url: Path) -> None:
    with pytest.raises(MismatchError) as caught:
        Checkpointer(train_url, {"net": Net(f"more{HOSTILE}")}, run_id=RUN).resume(quiet=True)
    assert is_harmless(str(caught.value))
    assert str(caught.value).count("\n  ") == len(caught.value.differences) > 0


def test_what_is_waived_is_told_harmlessly(train_url: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Checkpointer(train_url, {"net": Net(f"more{HOSTILE}")}, run_id=RUN).resume(allow_mismatch=["net"])
    told = capsys.readouterr().err
    assert is_harmless(told)
    assert "mismatched" in told


@pytest.mark.parametrize("resume", [HOSTILE_FILE, "must"])
def test_no_checkpoint_is_told_harmlessly(resume: str, tmp_path: Path) -> None:
    with pytest.raises(CkptfmtError) as caught:
        Checkpointer(tmp_path / HOSTILE_FILE, {"net": Net()}, run_id=RUN).resume(resume)
    assert is_harmless(str(caught.value))


def test_a_start_from_other_weights_is_told_harmlessly_and_saves_go_on(
    tmp_path: Path, train_url: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = Checkpointer(tmp_path / "new", {"net": Net()}, background=False, run_id=RUN)
    ckpt.resume(quiet=True)
    ckpt.warm_start(train_url / f"{HOSTILE_FILE}.ckptfmt")
    assert is_harmless(capsys.readouterr().err)
    ckpt.save()  # the name of the file is noted, and it is not text
    assert ckpt.last_saved is not None


def test_a_failed_save_is_told_harmlessly(
    train_url: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, HOSTILE)

    ckpt = Checkpointer(train_url, {"net": Net()}, run_id=RUN)
    ckpt.resume(quiet=True)
    monkeypatch.setattr(os, "fsync", fail)
    ckpt.save()
    ckpt.wait()
    told = capsys.readouterr().err
    assert "FAILED" in told
    assert is_harmless(told), ascii(told)
    assert ckpt.last_error is not None
    assert is_harmless(str(ckpt.last_error))
