"""Directories in which a training publishes checkpoints and removes old ones while a command looks at them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ckptfmt._core.ops.conversion.convert_tree import convert_tree, plan_tree
from ckptfmt._core.ops.directory.curves import read_curves
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.ops.directory.listing import list_directory
from ckptfmt._core.ops.directory.prune import apply_prune, plan_prune
from ckptfmt._core.ops.directory.verify import Verdict, verify_paths
from ckptfmt._core.runs import scan as runs
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt._core.storage.base import Entry
from ckptfmt._core.storage.local.store import LocalStore
from ckptfmt.errors import StorageError
from tests.ops.conftest import save_run

PUBLISHED = 300


class Training:
    """Publishes the next checkpoint and removes the one before whenever a directory has been listed."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.directory = directory
        self.step = 0
        self.left = 0
        self.save()
        listed = LocalStore.list

        def overtaken(store: LocalStore) -> Iterator[Entry]:
            yield from list(listed(store))
            if self.left:
                self.left -= 1
                before = self.path
                self.save()
                before.unlink()

        monkeypatch.setattr(LocalStore, "list", overtaken)
        self.left = times

    @property
    def path(self) -> Path:
        return self.directory / f"{self.step}.ckptfmt"

    def save(self) -> None:
        self.step += 1
        save_run(self.path, run_id="r", step=self.step, metrics={"loss": 1 / self.step})


@pytest.fixture(params=[1, 3])
def training(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    return Training(tmp_path, monkeypatch, request.param)


@pytest.mark.parametrize("verify", [False, True])
def test_latest_finds_the_one_that_has_taken_the_place(training: Training, verify: bool) -> None:
    report = find_latest(training.directory, verify=verify)
    assert report.file is not None
    assert report.file.path == str(training.path)
    assert report.skipped == ()


def test_latest_looks_again_if_one_is_gone_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "1.ckptfmt", tmp_path / "2.ckptfmt"
    save_run(old, run_id="r", step=1)
    verified = runs.verified

    def overtaken(file: CheckpointReference, progress: Callable[[int], None] | None = None) -> CheckpointReference:
        if file.path == str(old):
            save_run(new, run_id="r", step=2)
            old.unlink()
        return verified(file, progress)

    monkeypatch.setattr("ckptfmt._core.catalog.verified", overtaken)
    report = find_latest(tmp_path, verify=True)
    assert report.file is not None
    assert (report.file.path, report.skipped) == (str(new), ())


def test_ls_and_plot_show_the_one_that_has_taken_the_place(training: Training) -> None:
    assert [entry.path for entry in list_directory(training.directory).entries] == [str(training.path)]
    training.left = 1
    report = read_curves(training.directory, norms=True)
    assert report.skipped == ()
    (run,) = report.runs
    assert [place for place, _ in run.metrics[0].points] == [training.step]


def test_verify_has_a_verdict_on_what_is_there_and_none_on_what_is_gone(training: Training) -> None:
    report = verify_paths([training.directory])
    assert [(file.path, file.verdict) for file in report.files] == [(str(training.path), Verdict.SOUND)]
    assert report.sound
    assert report.empty_directories == ()


def test_a_file_that_was_named_and_is_gone_is_unreadable(training: Training) -> None:
    training.left = 0
    missing = training.directory / "missing.ckptfmt"
    report = verify_paths([training.directory, missing])
    assert [file.verdict for file in report.files] == [Verdict.SOUND, Verdict.UNREADABLE]


def test_a_directory_of_which_all_is_gone_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_run(tmp_path / "1.ckptfmt", run_id="r", step=1)
    listed = LocalStore.list

    def overtaken(store: LocalStore) -> Iterator[Entry]:
        for entry in list(listed(store)):
            (tmp_path / entry.name).unlink()
            yield entry

    monkeypatch.setattr(LocalStore, "list", overtaken)
    report = verify_paths([tmp_path])
    assert (report.files, report.empty_directories) == ((), (str(tmp_path),))


def test_prune_calls_nothing_damaged_that_is_only_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        save_run(tmp_path / f"{step}.ckptfmt", run_id="r", step=step)
    plan = plan_prune(tmp_path, RetentionPolicy(keep_last=2))
    verified = runs.verified

    def overtaken(file: CheckpointReference, progress: Callable[[int], None] | None = None) -> CheckpointReference:
        if file.name == "2.ckptfmt":
            Path(file.path).unlink()
        return verified(file, progress)

    monkeypatch.setattr("ckptfmt._core.catalog.verified", overtaken)
    result = apply_prune(plan)
    assert result.damaged == ()
    assert sorted(path.name for path in tmp_path.glob("*.ckptfmt")) == ["1.ckptfmt", "3.ckptfmt"]


def test_convert_leaves_out_what_is_gone(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    for name in ("a.pth", "b.pth", "deep/c.pth"):
        torch.save({"w": torch.ones(3)}, source / name)
    pairs = plan_tree(source, tmp_path / "out")
    (source / "b.pth").unlink()
    report = convert_tree(pairs)
    assert report.failed == ()
    assert [Path(done.target).name for done in report.converted] == ["a.ckptfmt", "c.ckptfmt"]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.ops.conftest import save_run
directory, count = Path(sys.argv[1]), int(sys.argv[2])
for step in range(2, count + 2):
    save_run(directory / f"{step}.ckptfmt", run_id="r", step=step)
    (directory / f"{step - 1}.ckptfmt").unlink()
"""


@contextmanager
def training_beside(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Let another process publish checkpoints and remove the ones before, a bounded number of them."""
    save_run(directory / "1.ckptfmt", run_id="r", step=1)
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(directory), str(PUBLISHED), root])
    try:
        yield process
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()


def test_beside_a_real_training_there_is_always_one(tmp_path: Path) -> None:
    looks = 0
    with training_beside(tmp_path) as process:
        while process.poll() is None:
            looks += 1
            report = find_latest(tmp_path, verify=looks % 2 == 0)
            assert report.file is not None
            assert report.skipped == ()
            checked = verify_paths([tmp_path])
            assert checked.sound, checked
            assert list_directory(tmp_path).entries
    assert looks > 1
    (left,) = tmp_path.glob("*.ckptfmt")
    assert left.name == f"{PUBLISHED + 1}.ckptfmt"
    with pytest.raises(StorageError):
        find_latest(tmp_path / "missing")
