"""A run stays in its directory, whatever happens to the names that lead there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.leases.holders import this_process
from ckptfmt._core.storage.leases.lease import Holder, Lease
from ckptfmt._core.storage.local.file_leases import lease_path, leases_in, publish_lease
from ckptfmt._core.storage.local.lock import directory_lock
from ckptfmt._core.training.run_record import RunRecord
from ckptfmt._core.training.saving.tidying import Tidying
from ckptfmt.errors import LeaseError, StorageError, SupersededError
from ckptfmt.torch import Checkpointer
from tests.torch.directories import names
from tests.torch.job import run_job
from tests.torch.writers import Writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="directories in use cannot be renamed, links not made")

STEPS = 6


def train(train_url: str | Path, disturb: Callable[[], object] = lambda: None, **options: Any) -> Checkpointer:
    """Train and save each step; disturb the run in the middle, when nothing is being written."""
    ckpt = Checkpointer(train_url, {}, save_interval_steps=1, save_interval_epochs=None, signals=(), **options)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for number in ckpt.batches(range(STEPS)):
            if number == STEPS // 2:
                ckpt.wait()
                disturb()
            ckpt.step()
    return ckpt


def save_and_wait(ckpt: Checkpointer) -> None:
    ckpt.save()
    ckpt.wait()


def steps(directory: Path) -> list[int | None]:
    return [file.metadata.step for file in scan(directory)]


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the working directory, and has another one in it."""
    directory = tmp_path.resolve() / "here"
    (directory / "elsewhere").mkdir(parents=True)
    monkeypatch.chdir(directory)
    return directory


# The working directory changes.


def test_a_run_of_a_relative_path_stays_there_when_the_working_directory_changes(
    at: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = train("runs/x", lambda: monkeypatch.chdir("elsewhere"), keep_last=2)
    assert ckpt.last_error is None
    assert steps(at / "runs" / "x") == [STEPS - 1, STEPS]
    assert list((at / "elsewhere").iterdir()) == []
    assert ckpt.train_url == str(at / "runs" / "x")
    assert capsys.readouterr().err == ""
    monkeypatch.chdir(at)
    assert Checkpointer("runs/x", {}).resume(quiet=True).step == STEPS


def test_the_report_of_a_resume_says_where_the_checkpoints_are(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ckpt = Checkpointer("runs", {})
    started = ckpt.resume()
    ckpt.save()
    ckpt.close()
    resumed = Checkpointer(Path("runs"), {}).resume()
    assert started.directory == resumed.directory == str(at / "runs")
    assert resumed.path == str(at / "runs" / "ckpt-00000000-e0000.ckptfmt")
    assert capsys.readouterr().err.count(str(at / "runs")) == 2


class Wanderer:
    """A component that changes the working directory when it is restored."""

    def __init__(self, to: str = ".") -> None:
        self.to = to

    def state_dict(self) -> dict[str, Any]:
        return {"to": self.to, "weights": torch.ones(3)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        os.chdir(self.to)


def test_a_checkpoint_of_a_relative_path_is_resumed_by_what_changes_the_working_directory(at: Path) -> None:
    with Checkpointer("old", {"who": Wanderer()}) as ckpt:
        ckpt.resume(quiet=True)
        ckpt.save()
    path = Path("old", *names(at / "old"))
    ckpt = Checkpointer("new", {"who": Wanderer("elsewhere")})
    report = ckpt.resume(path, quiet=True)
    ckpt.save()
    ckpt.close()
    assert report.path == str(at / path)
    assert ckpt.last_error is None
    assert len(names(at / "new")) == 1


def test_a_relative_path_in_a_working_directory_that_is_gone_is_an_error_of_ours(at: Path) -> None:
    gone = at / "elsewhere" / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with pytest.raises(StorageError):
        Checkpointer("runs", {})


def resume_from_here(rank: int, at: Path) -> tuple[int, str]:
    """Resume by relative paths in a working directory of this rank's own, which holds a link to the same directory."""
    os.chdir(at / f"rank{rank}")
    ckpt = Checkpointer("runs", {"net": torch.nn.Linear(2, 2)}, save_interval_steps=1)
    step = ckpt.resume(quiet=True).step
    again = Checkpointer("others", {"net": torch.nn.Linear(2, 2)})
    return step, str(again.resume(Path("runs", "ckpt-00000000-e0000.ckptfmt"), quiet=True).step)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_each_rank_finds_the_checkpoint_by_its_own_name_of_the_directory(
    tmp_path: Path, context: ForkServerContext
) -> None:
    ended = run_job(context, tmp_path / "job", save_from_anywhere, tmp_path)
    assert [it.error for it in ended] == ["", ""]
    for rank in range(2):  # as two machines name a file server by paths of their own
        (tmp_path / f"rank{rank}").mkdir()
    (tmp_path / "rank0" / "runs").symlink_to(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "rank1" / "runs")
    (tmp_path / "runs").symlink_to(tmp_path / "rank1" / "runs")
    ended = run_job(context, tmp_path / "job", resume_from_here, tmp_path)
    assert [(it.value, it.error) for it in ended] == [((0, "0"), "")] * 2


def save_from_anywhere(rank: int, at: Path) -> None:
    ckpt = Checkpointer(at / "runs", {"net": torch.nn.Linear(2, 2)})
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.wait()
    ckpt.close()


# The name of the directory leads elsewhere.


def test_a_run_stays_in_the_directory_that_a_link_led_to_when_it_began(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `runs/latest`, which the next run points at its own directory."""
    mine, other, link = at / "mine", at / "other", at / "latest"
    mine.mkdir()
    other.mkdir()
    link.symlink_to(mine)

    def turn() -> None:
        link.unlink()
        link.symlink_to(other)

    ckpt = train("latest", turn, keep_last=2)
    assert steps(mine) == [STEPS - 1, STEPS]
    assert list(other.iterdir()) == []
    assert ckpt.last_error is None
    assert capsys.readouterr().err == ""


def test_a_link_that_leads_nowhere_is_not_made_to_lead_somewhere(at: Path) -> None:
    """It may lead to a volume that is not mounted."""
    Path("runs").symlink_to("volume/runs")
    for name in ("runs", "runs/x"):
        with pytest.raises(StorageError):
            Checkpointer(name, {}).resume(quiet=True)
    assert not (at / "volume").exists()


def test_a_directory_put_in_the_place_of_that_of_the_run_is_used_and_reported(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def replace() -> None:
        Path("runs").rename("moved")
        Path("runs").mkdir()

    ckpt = train("runs", replace)
    assert steps(at / "moved") == [1, 2, 3]
    assert steps(at / "runs") == [4, 5, 6]
    assert ckpt.last_error is None
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ckptfmt:")]
    assert len(lines) == 1, "it is said once"
    assert str(at / "runs") in lines[0]


@pytest.mark.parametrize("name", ["runs", "gone"])
def test_a_checkpoint_that_is_gone_before_older_ones_are_removed_is_reported_as_that(at: Path, name: str) -> None:
    (at / "runs").mkdir()
    path = at / name / "ckpt-00000001-e0000.ckptfmt"
    (complaint,) = Tidying(RunRecord(at / name, "r"), RetentionPolicy(keep_last=1))(str(path))
    assert complaint.startswith(f"{path}: "), "it begins with what is the matter, not with what was not removed"


def test_a_lease_that_was_removed_comes_back_without_a_word(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def remove() -> None:
        for path in Path("runs").glob(".ckptfmt.*.lease"):
            path.unlink()

    train("runs", remove)
    assert steps(at / "runs") == [1, 2, 3, 4, 5, 6]
    assert capsys.readouterr().err == ""


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return what puts something else in the place of a file."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGE: dict[str, Callable[[Path], object]] = {
    "overwritten": lambda path: path.write_bytes(b"\0{" * 100),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, 20),
    "another file": instead(lambda path: path.write_text("[]")),
    "a directory": instead(Path.mkdir),
    "a link": instead(lambda path: path.symlink_to("nowhere")),
    "a pipe": instead(os.mkfifo),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_process_that_holds_a_run_mends_its_lease(
    at: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = train("runs", lambda: damage(lease_path("runs", "r")), run_id="r")
    assert ckpt.last_error is None
    assert steps(at / "runs") == [1, 2, 3, 4, 5, 6]
    assert [(lease.run_id, lease.generation) for lease in leases_in("runs")] == [("r", 1)]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, "it is said once"
    assert str(lease_path(at / "runs", "r")) in said[0]


def test_a_damaged_lease_is_not_mended_by_who_does_not_hold_it(at: Path) -> None:
    with Checkpointer("runs", {}, run_id="r") as ckpt:
        ckpt.resume(quiet=True)
        ckpt.save()
    lease_path("runs", "r").write_text("{")
    with pytest.raises(LeaseError):
        Checkpointer("runs", {}, run_id="r").resume(quiet=True)
    assert lease_path("runs", "r").read_text() == "{"


# A lease that an older copy of the directory brought back.

DEAD = Holder("node7", 42, this_process().machine, f"{this_process().process.split(' ')[0]} 1", "2026-01-01T00:00:00Z")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody knows whether a process lives")
@pytest.mark.parametrize("generation", [0, 1])
def test_a_lower_generation_of_a_dead_process_is_no_takeover(at: Path, generation: int) -> None:
    for _ in range(2):
        ckpt = Checkpointer("runs", {}, run_id="r")
        ckpt.resume(quiet=True)
        ckpt.save()
        ckpt.close()

    def put_back() -> None:
        with directory_lock("runs"):
            publish_lease("runs", Lease("r", generation, "ff" * 16, DEAD)).close()

    ckpt = train("runs", put_back, run_id="r")
    assert ckpt.last_error is None
    assert max(step or 0 for step in steps(at / "runs")) == STEPS
    assert [lease.generation for lease in leases_in("runs")] == [3]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody knows whether a process lives")
def test_a_lower_generation_of_a_process_that_lives_is_one(at: Path, context: ForkServerContext) -> None:
    """Somebody emptied the directory, and started the run once more."""
    for _ in range(2):
        ckpt = Checkpointer("runs", {}, run_id="r")
        ckpt.resume(quiet=True)
    for path in Path("runs").iterdir():
        path.unlink()
    with Writer(context, at / "runs", at / "said", checkpointer={"run_id": "r"}) as other:
        assert other.resumed() is not None
        with pytest.raises(SupersededError):
            save_and_wait(ckpt)
        assert [lease.generation for lease in leases_in("runs")] == [1]
        other.step()
        assert other.end() == 0
