from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt.errors import StorageError
from tests.ops.conftest import CREATED, STATE, Save, flip_byte, save_run

WEIGHTS = np.asarray(STATE["net"]["conv.weight"]).tobytes()


def latest(directory: Path, **options: object) -> str | None:
    report = find_latest(directory, **options)  # type: ignore[arg-type]  # of several kinds
    return None if report.file is None else report.file.name


def test_it_is_the_one_with_the_most_steps_whatever_its_name_or_time(save: Save, tmp_path: Path) -> None:
    save("ckpt_9.ckptfmt", run_id="r", step=9, created=CREATED + timedelta(days=1))
    save("ckpt_10.ckptfmt", run_id="r", step=10)
    save("best.ckptfmt", run_id="r", step=2)
    assert latest(tmp_path) == "ckpt_10.ckptfmt"


def test_it_is_of_the_latest_generation_however_far_an_earlier_one_is(tmp_path: Path) -> None:
    save_run(tmp_path / "a.ckptfmt", run_id="r", generation=2, step=100)
    save_run(tmp_path / "b.ckptfmt", run_id="r", generation=1, step=900, epoch=9, created=CREATED + timedelta(days=1))
    save_run(tmp_path / "c.ckptfmt", run_id="r", step=1000)
    assert latest(tmp_path) == "a.ckptfmt"


def test_it_is_of_the_run_that_would_be_resumed_or_of_the_one_that_is_named(save: Save, tmp_path: Path) -> None:
    save("old.ckptfmt", run_id="old", step=900)
    save("new.ckptfmt", run_id="new", step=1, created=CREATED + timedelta(hours=1))
    assert latest(tmp_path) == "new.ckptfmt"
    assert latest(tmp_path, run_id="old") == "old.ckptfmt"
    assert latest(tmp_path, run_id="none") is None


def test_without_any_run_it_is_the_newest_of_all(save: Save, tmp_path: Path) -> None:
    save("a.ckptfmt", epoch=3)
    save("b.ckptfmt", epoch=12)
    assert latest(tmp_path) == "b.ckptfmt"


def test_what_cannot_be_read_is_passed_over_and_told(save: Save, tmp_path: Path) -> None:
    save("1.ckptfmt", run_id="r", step=1)
    cut = save("2.ckptfmt", run_id="r", step=2)
    cut.write_bytes(cut.read_bytes()[:-9])
    report = find_latest(tmp_path)
    assert report.file is not None
    assert report.file.name == "1.ckptfmt"
    assert [Path(item.path).name for item in report.skipped] == ["2.ckptfmt"]


def test_only_reading_every_byte_tells_of_damaged_data(save: Save, tmp_path: Path) -> None:
    save("1.ckptfmt", run_id="r", step=1)
    flip_byte(save("2.ckptfmt", run_id="r", step=2), WEIGHTS)
    assert latest(tmp_path) == "2.ckptfmt"
    report = find_latest(tmp_path, verify=True)
    assert report.file is not None
    assert (report.file.name, report.file.verified) == ("1.ckptfmt", True)
    (passed,) = report.skipped
    assert "conv.weight" in passed.reason


def test_nothing_is_not_an_error_and_no_directory_is(save: Save, tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    with pytest.raises(StorageError):
        find_latest(tmp_path / "missing")


def test_the_json_form(save: Save, tmp_path: Path) -> None:
    nothing = json.loads(json.dumps(find_latest(tmp_path).to_json()))
    path = save(run_id="r", step=1)
    document = json.loads(json.dumps(find_latest(tmp_path).to_json()))
    assert list(document) == list(nothing)
    assert list(document) == [
        *("report", "directory", "run_id", "path", "file_bytes", "identity", "metadata", "verified", "resumable"),
        *("skipped", "undecided"),
    ]
    assert (document["report"], document["path"], document["verified"]) == ("latest/1", str(path), False)
    assert nothing["path"] is None
