"""A checkpoint that has several names in a directory, by links, is one: counted once, drawn once, measured once."""

from __future__ import annotations

import os
import re
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ckptfmt._core.ops.directory.curves import read_curves
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.ops.directory.listing import Mark, list_directory
from ckptfmt._core.ops.directory.prune import apply_prune, plan_prune
from ckptfmt._core.ops.directory.verify import verify_paths
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt_cli.terminal import PLAIN
from ckptfmt_cli.views.listing import list_lines
from ckptfmt_cli.views.prune import plan_lines
from ckptfmt_cli.views.verify import summary_line
from tests.cli.conftest import NOW
from tests.ops.conftest import CREATED, Save

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")


@pytest.fixture
def directory(save: Save, tmp_path: Path) -> Path:
    """Return a directory with three checkpoints, links to two of them that sort before and after, and a dead link."""
    for step in (1, 2, 3):
        save(
            f"{step}.ckptfmt",
            run_id="r",
            step=step,
            created=CREATED + timedelta(hours=step),
            metrics={"loss": 1 / step},
        )
    (tmp_path / "0-first.ckptfmt").symlink_to("1.ckptfmt")
    (tmp_path / "latest.ckptfmt").symlink_to("3.ckptfmt")
    (tmp_path / "nowhere.ckptfmt").symlink_to("gone")
    return tmp_path


def size(directory: Path) -> int:
    return (directory / "1.ckptfmt").stat().st_size


def test_ls_counts_it_once_and_marks_the_links(directory: Path) -> None:
    report = list_directory(directory)
    assert report.total_bytes == report.to_json()["total_bytes"] == 3 * size(directory)
    marks = {entry.name: entry.marks for entry in report.entries}
    assert marks == {
        "0-first.ckptfmt": (Mark.LINK,),
        "1.ckptfmt": (),
        "2.ckptfmt": (),
        "3.ckptfmt": (Mark.RESUME, Mark.NEWEST, Mark.BEST),
        "latest.ckptfmt": (Mark.LINK,),
        "nowhere.ckptfmt": (Mark.LINK,),
    }
    (run,) = report.runs
    assert run.curve is not None
    assert run.curve.values == (1.0, 1 / 2, 1 / 3)
    assert re.findall(r"\d+", list_lines(report, PLAIN, NOW)[0].rpartition(": ")[2])[:2] == ["3", "3"]


def test_latest_is_the_file_itself(directory: Path) -> None:
    found = find_latest(directory).file
    assert found is not None
    assert found.name == "3.ckptfmt"


def test_a_link_out_of_the_directory_is_a_checkpoint_all_the_same(save: Save, directory: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save("4.ckptfmt", run_id="r", step=4, metrics={"loss": 0.1}).rename(elsewhere / "4.ckptfmt")
    (directory / "4.ckptfmt").symlink_to(elsewhere / "4.ckptfmt")
    report = list_directory(directory)
    assert report.total_bytes == 3 * size(directory) + (elsewhere / "4.ckptfmt").stat().st_size
    assert report.runs[0].curve is not None
    assert len(report.runs[0].curve.values) == 4


def test_verify_measures_it_once(directory: Path) -> None:
    report = verify_paths([directory, directory / "1.ckptfmt"])
    assert report.total_bytes == report.to_json()["total_bytes"] == 3 * size(directory)
    assert [Path(file.path).name for file in report.files if file.repeated] == ["1.ckptfmt", "latest.ckptfmt"]
    assert summary_line(report).startswith("6 ")


def test_prune_measures_it_once(directory: Path) -> None:
    planned = plan_prune(directory, RetentionPolicy(keep_last=1))
    assert planned.plan.freed_bytes == size(directory)  # the first one stays: a link leads to it
    shown = "".join(plan_lines(planned, PLAIN, NOW)[-2:])
    for nbytes in (size(directory), 2 * size(directory)):
        assert f"({nbytes / 1024:.1f} KiB)" in shown
    assert apply_prune(planned).report.freed_bytes == size(directory)


def test_what_stays_under_another_name_frees_nothing_and_takes_no_more_room(directory: Path) -> None:
    os.link(directory / "2.ckptfmt", directory / "2-again.ckptfmt")
    roomy = plan_prune(directory, RetentionPolicy(max_bytes=3 * size(directory)))
    assert roomy.plan.removed == ()
    tight = plan_prune(directory, RetentionPolicy(keep_last=3, max_bytes=3 * size(directory)))
    assert tight.plan.freed_bytes in (0, size(directory))
    both = plan_prune(directory, RetentionPolicy(keep_last=1))
    assert {file.name for file in both.plan.removed} == {"2.ckptfmt", "2-again.ckptfmt"}
    assert both.plan.freed_bytes == size(directory)
    assert apply_prune(both).report.freed_bytes == size(directory)


def test_a_plot_draws_it_once(directory: Path) -> None:
    (run,) = read_curves(directory).runs
    assert [curve.points for curve in run.metrics] == [((1, 1.0), (2, 1 / 2), (3, 1 / 3))]
