"""Which checkpoint is resumed from: by what is written inside, never by names or file times."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt import MismatchError, StorageError
from ckptfmt._core.training.saving.background_saver import wait_for_all
from ckptfmt.torch import Checkpointer, ResumeError, ResumeReport
from tests.torch.directories import names
from tests.torch.tiny import Killed, Point, final_state, run

START = datetime(2026, 1, 1, tzinfo=UTC)


class Value:
    """A component that tells which checkpoint it comes from."""

    def __init__(self) -> None:
        self.value: object = None

    def state_dict(self) -> dict[str, object]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.value = state["value"]


def put(path: Path, step: int, *, run_id: str | None = "a", epoch: int = 0, hour: int | None = None) -> Path:
    """Save a checkpoint as a Checkpointer might have."""
    created = START + timedelta(hours=step if hour is None else hour)
    state = {"value": {"value": f"{run_id} {step} {epoch}"}, "weights": {"w": torch.ones(2000)}}
    ckptfmt.torch.save(state, path, run_id=run_id, step=step, epoch=epoch, created=created)
    return path


def resume(directory: Path, run_id: str | None = None) -> tuple[object, ResumeReport]:
    value = Value()
    report = Checkpointer(directory, {"value": value}, run_id=run_id).resume(quiet=True, allow_mismatch=["rng"])
    return value.value, report


def damage(path: Path, offset: int = 13000) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_the_newest_is_the_one_with_the_most_steps(tmp_path: Path) -> None:
    put(tmp_path / "ckpt_9.ckptfmt", 9)
    put(tmp_path / "ckpt_10.ckptfmt", 10)
    assert resume(tmp_path)[0] == "a 10 0"


def test_names_and_file_times_say_nothing(tmp_path: Path) -> None:
    names = [f"{letter}.ckptfmt" for letter in "abcdef"]
    random.Random(1).shuffle(names)
    for step, name in enumerate(names):
        put(tmp_path / name, step)
        os.utime(tmp_path / name, (1e9 - step, 1e9 - step))
    value, report = resume(tmp_path)
    assert value == "a 5 0"
    assert report.path == str(tmp_path / names[5])


def test_at_the_same_step_the_end_of_the_epoch_is_newer(tmp_path: Path) -> None:
    put(tmp_path / "x.ckptfmt", 6, epoch=3, hour=1)
    put(tmp_path / "y.ckptfmt", 6, epoch=2, hour=2)
    assert resume(tmp_path)[0] == "a 6 3"


def test_of_several_runs_the_one_that_saved_last_goes_on(tmp_path: Path) -> None:
    put(tmp_path / "1.ckptfmt", 500, run_id="old", hour=1)
    put(tmp_path / "2.ckptfmt", 20, run_id="new", hour=2)
    put(tmp_path / "3.ckptfmt", 10, run_id="new", hour=3)  # saved last, yet not the newest of its run
    value, report = resume(tmp_path)
    assert value == "new 20 0"
    assert (report.run_id, report.other_runs) == ("new", ("old",))


def test_a_run_can_be_named(tmp_path: Path) -> None:
    put(tmp_path / "1.ckptfmt", 500, run_id="old", hour=1)
    put(tmp_path / "2.ckptfmt", 20, run_id="new", hour=2)
    value, report = resume(tmp_path, "old")
    assert value == "old 500 0"
    assert report.other_runs == ("new",)


def test_a_named_run_that_is_not_there_is_started(tmp_path: Path) -> None:
    put(tmp_path / "1.ckptfmt", 5, run_id="other")
    value, report = resume(tmp_path, "mine")
    assert value is None
    assert (report.resumed, report.run_id, report.other_runs) == (False, "mine", ("other",))


def test_checkpoints_of_no_run_are_not_resumed_from(tmp_path: Path) -> None:
    put(tmp_path / "pretrained.ckptfmt", 10**6, run_id=None)
    assert not resume(tmp_path)[1].resumed
    put(tmp_path / "mine.ckptfmt", 1)
    assert resume(tmp_path)[0] == "a 1 0"


def test_a_damaged_newest_one_is_passed_over_reported_and_set_aside(tmp_path: Path) -> None:
    put(tmp_path / "1.ckptfmt", 1)
    damage(put(tmp_path / "2.ckptfmt", 2))
    content = (tmp_path / "2.ckptfmt").read_bytes()
    value, report = resume(tmp_path)
    assert value == "a 1 0"
    (skipped,) = report.skipped
    assert skipped.path == str(tmp_path / "2.ckptfmt")
    assert "'w'" in skipped.reason
    assert "2.ckptfmt.damaged" in skipped.reason
    assert names(tmp_path) == ["1.ckptfmt", "2.ckptfmt.damaged"]
    assert (tmp_path / "2.ckptfmt.damaged").read_bytes() == content
    assert resume(tmp_path)[1].skipped == ()  # it does not come up again


@pytest.mark.parametrize("nbytes", [0, 5, 64, 5000, -1])
def test_a_truncated_one_is_passed_over_and_reported(tmp_path: Path, nbytes: int) -> None:
    put(tmp_path / "1.ckptfmt", 1)
    path = put(tmp_path / "2.ckptfmt", 2)
    path.write_bytes(path.read_bytes()[:nbytes])
    value, report = resume(tmp_path)
    assert value == "a 1 0"
    assert [skipped.path for skipped in report.skipped] == [str(path)]


def test_foreign_files_do_not_disturb(tmp_path: Path) -> None:
    put(tmp_path / "1.ckptfmt", 1)
    torch.save({"epoch": 7}, tmp_path / "ckpt_best_7.pth")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".2.ckptfmt.00000000-0000000000000000.tmp").write_bytes(b"half")
    (tmp_path / "logs").mkdir()
    value, report = resume(tmp_path)
    assert value == "a 1 0"
    assert report.skipped == ()


def test_what_only_looks_like_a_checkpoint_is_reported(tmp_path: Path) -> None:
    put(tmp_path / "1.ckptfmt", 1)
    torch.save({"epoch": 7}, tmp_path / "7.ckptfmt")
    (tmp_path / "8.ckptfmt").mkdir()  # a directory is none
    value, report = resume(tmp_path)
    assert value == "a 1 0"
    assert [Path(skipped.path).name for skipped in report.skipped] == ["7.ckptfmt"]


def test_no_start_from_scratch_beside_checkpoints_that_cannot_be_used(tmp_path: Path) -> None:
    damage(put(tmp_path / "1.ckptfmt", 1))
    damage(put(tmp_path / "2.ckptfmt", 2), offset=-100)  # in the index
    with pytest.raises(ResumeError) as caught:
        resume(tmp_path)
    assert {Path(skipped.path).name for skipped in caught.value.skipped} == {"1.ckptfmt", "2.ckptfmt"}
    assert all(skipped.path in str(caught.value) for skipped in caught.value.skipped)


def test_a_missing_directory_is_made_and_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    assert not resume(tmp_path / "a" / "b")[1].resumed
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        resume(tmp_path / "file")


def test_urls_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(StorageError):
        Checkpointer("nowhere://bucket/run", {})


def test_a_run_keeps_its_id_and_other_starts_get_others(tmp_path: Path) -> None:
    first = resume(tmp_path)[1].run_id
    assert resume(tmp_path)[1].run_id != first  # nothing was saved: this is another run
    ckpt = Checkpointer(tmp_path, {"value": Value()})
    ckpt.resume(quiet=True)
    ckpt.save()
    assert resume(tmp_path)[1].run_id == ckpt.run_id  # a save that is under way is waited for


def test_a_save_never_replaces_anything(tmp_path: Path) -> None:
    other = put(tmp_path / "ckpt-00000000-e0000.ckptfmt", 7, run_id="other").read_bytes()
    junk = tmp_path / "ckpt-00000000-e0000-2.ckptfmt"
    junk.write_bytes(b"junk")
    ckpt = Checkpointer(tmp_path, {}, run_id="mine")
    with pytest.raises(ResumeError):  # the junk could be a checkpoint of this run
        ckpt.resume(quiet=True)
    junk.rename(tmp_path / "junk")
    ckpt.resume(quiet=True)
    (tmp_path / "junk").rename(junk)
    ckpt.save(loss=1)
    first = ckpt.wait()
    ckpt.save(loss=2)
    second = ckpt.wait()
    assert first is not None
    assert second is not None
    assert (tmp_path / "ckpt-00000000-e0000.ckptfmt").read_bytes() == other
    assert junk.read_bytes() == b"junk"
    assert first.path == str(tmp_path / "ckpt-00000000-e0000-3.ckptfmt")
    assert second.path == str(tmp_path / "ckpt-00000000-e0000-4.ckptfmt")


@pytest.mark.parametrize("announced", [True, False])
def test_loops_that_count_no_steps_keep_each_epoch(tmp_path: Path, announced: bool) -> None:
    value = Value()
    ckpt = Checkpointer(tmp_path, {"value": value}, keep_last=3, keep_best=("loss", "min"))
    ckpt.resume(quiet=True)
    for epoch in ckpt.epochs(6):
        value.value = epoch
        if announced:
            ckpt.end_epoch(loss=abs(epoch - 1))
    kept = sorted(path.name for path in tmp_path.glob("*.ckptfmt"))
    last = [f"ckpt-00000000-e000{epoch}.ckptfmt" for epoch in (4, 5, 6)]
    assert kept == (["ckpt-00000000-e0002.ckptfmt", *last] if announced else last)
    damage(tmp_path / kept[-1])
    found, report = resume(tmp_path)
    assert report.path == str(tmp_path / kept[-2])
    assert found == report.epoch - 1 == 4


def test_a_loop_of_ones_own_that_only_saves_keeps_each_save(tmp_path: Path) -> None:
    value = Value()
    ckpt = Checkpointer(tmp_path, {"value": value})
    ckpt.resume(quiet=True)
    for number in range(12):
        value.value = number
        ckpt.save()
    ckpt.close()
    assert len(list(tmp_path.glob("*.ckptfmt"))) == 12
    value = Value()
    Checkpointer(tmp_path, {"value": value}).resume(quiet=True)
    assert value.value == 11


def test_training_again_over_a_damaged_checkpoint_heals_it(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "hurt", kill=Point("after step", 3))
    wait_for_all()
    damage(tmp_path / "hurt" / "ckpt-00000003-e0001.ckptfmt", offset=4200)
    run(tmp_path / "hurt")
    set_aside = {"ckpt-00000003-e0001.ckptfmt.damaged"}
    assert set(names(tmp_path / "hurt")) == set(names(tmp_path / "whole")) | set_aside
    assert final_state(tmp_path / "hurt") == final_state(tmp_path / "whole")
    with ckptfmt.open(tmp_path / "hurt" / "ckpt-00000003-e0001.ckptfmt") as checkpoint:
        assert checkpoint.verify() == ()


def test_another_experiment_in_the_directory_is_a_mismatch_and_nothing_changes(tmp_path: Path) -> None:
    first = Checkpointer(tmp_path, {"net": torch.nn.Linear(2, 2)})
    first.resume(quiet=True)
    first.save()
    net = torch.nn.Linear(3, 3)
    before = net.weight.clone()
    with pytest.raises(MismatchError):
        Checkpointer(tmp_path, {"net": net}).resume(quiet=True)
    assert torch.equal(net.weight, before)
