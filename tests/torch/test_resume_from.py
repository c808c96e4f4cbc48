"""`resume="must" | "auto" | "never" | PATH`, files of the documented loop as candidates, and what is set aside."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptfmt.torch
from ckptfmt import CkptfmtError, FormatError, MismatchError, StorageError
from ckptfmt.torch import Checkpointer, ResumeError, ResumeReport, UndecidedError, UsageError
from tests.torch.directories import names
from tests.torch.same import same
from tests.torch.test_selection import START, Value, damage, put
from tests.torch.training import dense_net, train


def resume(directory: Path, how: Any = "auto", run_id: str | None = None) -> tuple[object, ResumeReport]:
    value = Value()
    with Checkpointer(directory, {"value": value}, run_id=run_id) as ckpt:
        report = ckpt.resume(how, quiet=True, allow_mismatch=["rng"])
    return value.value, report


class TestWords:
    def test_must_without_a_checkpoint_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ResumeError):
            resume(tmp_path, "must")
        put(tmp_path / "a.ckptfmt", 5, run_id="other")
        with pytest.raises(ResumeError, match=r"\bmine\b.*: other"):
            resume(tmp_path, "must", "mine")

    def test_must_goes_on_like_auto(self, tmp_path: Path) -> None:
        put(tmp_path / "a.ckptfmt", 5)
        assert resume(tmp_path, "must")[0] == "a 5 0"

    def test_never_starts_a_run_of_its_own_beside_the_others(self, tmp_path: Path) -> None:
        put(tmp_path / "a.ckptfmt", 5)
        value, report = resume(tmp_path, "never")
        assert value is None
        assert (report.resumed, report.other_runs) == (False, ("a",))
        assert report.run_id != "a"

    def test_never_does_not_begin_a_run_twice(self, tmp_path: Path) -> None:
        put(tmp_path / "a.ckptfmt", 5)
        with pytest.raises(UsageError, match=r"\ba\b"):
            resume(tmp_path, "never", "a")

    def test_a_path_is_taken_and_no_other(self, tmp_path: Path) -> None:
        put(tmp_path / "1.ckptfmt", 1)
        put(tmp_path / "2.ckptfmt", 2)
        assert resume(tmp_path, tmp_path / "1.ckptfmt")[0] == "a 1 0"
        damage(tmp_path / "2.ckptfmt")
        with pytest.raises(FormatError, match=r"2\.ckptfmt"):
            resume(tmp_path, tmp_path / "2.ckptfmt")
        assert (tmp_path / "2.ckptfmt").exists()
        with pytest.raises(StorageError, match=r"3\.ckptfmt"):
            resume(tmp_path, tmp_path / "3.ckptfmt")

    def test_a_path_to_another_run_makes_that_one_the_parent(self, tmp_path: Path) -> None:
        """The run keeps the id that it was given; where it came from is written down."""
        (tmp_path / "old").mkdir()
        path = put(tmp_path / "old" / "1.ckptfmt", 1, run_id="old")
        with ckptfmt.open(path) as checkpoint:
            identity = checkpoint.identity
        value, report = resume(tmp_path / "new", path, "new")
        assert value == "old 1 0"
        assert (report.run_id, report.parent) == ("new", identity)

    def test_a_path_to_a_directory_means_the_newest_there(self, tmp_path: Path) -> None:
        (tmp_path / "old").mkdir()
        put(tmp_path / "old" / "9.ckptfmt", 9)
        put(tmp_path / "old" / "10.ckptfmt", 10)
        assert resume(tmp_path / "new", tmp_path / "old")[0] == "a 10 0"
        (tmp_path / "empty").mkdir()
        with pytest.raises(ResumeError, match="empty"):
            resume(tmp_path / "new", str(tmp_path / "empty"))


class TestByContent:
    """Names, copies and clocks that would mislead who looked at them."""

    def test_a_copied_directory_is_the_same_run(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        for step in (9, 10):
            put(tmp_path / "one" / f"ckpt_{step}.ckptfmt", step)
        shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
        assert resume(tmp_path / "two")[0] == "a 10 0"

    def test_a_copy_under_another_name_changes_nothing(self, tmp_path: Path) -> None:
        path = put(tmp_path / "ckpt-00000010.ckptfmt", 10)
        put(tmp_path / "ckpt-00000009.ckptfmt", 9)
        shutil.copyfile(path, tmp_path / "ckpt-00000001.ckptfmt")
        assert resume(tmp_path)[0] == "a 10 0"

    def test_a_clock_that_went_back_changes_nothing_within_a_run(self, tmp_path: Path) -> None:
        put(tmp_path / "1.ckptfmt", 1, hour=500)
        put(tmp_path / "2.ckptfmt", 2, hour=3)
        assert resume(tmp_path)[0] == "a 2 0"

    def test_a_clock_of_the_far_future_does_not_choose_the_run(self, tmp_path: Path) -> None:
        years = round((datetime.now(UTC) - START) / timedelta(hours=1)) + 24 * 365 * 5
        put(tmp_path / "1.ckptfmt", 1, run_id="wrong", hour=years)
        put(tmp_path / "2.ckptfmt", 2, run_id="right", hour=3)
        assert resume(tmp_path)[0] == "right 2 0"

    def test_of_equal_steps_the_one_created_last(self, tmp_path: Path) -> None:
        put(tmp_path / "x.ckptfmt", 3, hour=2, epoch=1)
        state = {"value": {"value": "later"}}
        ckptfmt.torch.save(
            state, tmp_path / "a.ckptfmt", run_id="a", step=3, epoch=1, created=START + timedelta(hours=9)
        )
        assert resume(tmp_path)[0] == "later"


class TestDocumentedLoop:
    """`.pth` files that the plain PyTorch loop has left."""

    def loop(self, directory: Path, epochs: range, name: str = "ckpt_best_{}.pth") -> dict[str, Any]:
        """Train and save as the documentation shows; return the last state."""
        directory.mkdir(exist_ok=True)
        net = dense_net(0)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
        state: dict[str, Any] = {}
        for epoch in epochs:
            train(net, optimizer, [epoch])
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save(state, directory / name.format(epoch))
        return state

    def go_on(self, directory: Path, how: Any = "auto", **options: Any) -> tuple[Checkpointer, ResumeReport, Any, Any]:
        net = dense_net(1)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.9)
        ckpt = Checkpointer(directory, {"net": net, "optimizer": optimizer}, **options)
        return ckpt, ckpt.resume(how, quiet=True, allow_mismatch=["rng"]), net, optimizer

    @pytest.mark.parametrize("name", ["ckpt_best_{}.pth", "{}.pt"])
    def test_the_newest_by_the_epoch_inside(self, tmp_path: Path, name: str) -> None:
        state = self.loop(tmp_path, range(11), name)
        ckpt, report, net, optimizer = self.go_on(tmp_path)
        assert report.path == str(tmp_path / name.format(10))
        assert same(net.state_dict(), state["net"])
        assert same(optimizer.state_dict()["state"], state["optimizer"]["state"])
        assert list(ckpt.epochs(13)) == [11, 12]  # as the documented loop would

    def test_random_states_are_lost_and_that_is_an_error_unless_waived(self, tmp_path: Path) -> None:
        self.loop(tmp_path, range(2))
        net = dense_net(1)
        ckpt = Checkpointer(tmp_path, {"net": net, "optimizer": torch.optim.AdamW(net.parameters())})
        with pytest.raises(MismatchError, match="rng"):
            ckpt.resume(quiet=True)

    def test_once_there_are_own_checkpoints_the_further_one_counts(self, tmp_path: Path) -> None:
        self.loop(tmp_path, range(3))
        ckpt, _, _, _ = self.go_on(tmp_path)
        assert list(ckpt.epochs(4)) == [3]
        _, report, _, _ = self.go_on(tmp_path)
        assert report.path is not None
        assert report.path.endswith(".ckptfmt")
        self.loop(tmp_path, range(8))
        _, report, _, _ = self.go_on(tmp_path)
        assert report.path == str(tmp_path / "ckpt_best_7.pth")

    def test_other_files_of_torch_are_none(self, tmp_path: Path) -> None:
        torch.save({"epoch": 7}, tmp_path / "facts.pth")
        torch.save(dense_net(0).state_dict(), tmp_path / "weights.pth")
        torch.save({"net": dense_net(0).state_dict(), "epoch": -1}, tmp_path / "negative.pth")
        _, report, _, _ = self.go_on(tmp_path)
        assert not report.resumed

    def test_a_broken_one_is_passed_over_and_stays(self, tmp_path: Path) -> None:
        self.loop(tmp_path, range(3))
        path = tmp_path / "ckpt_best_2.pth"
        path.write_bytes(path.read_bytes()[:500])
        _, report, _, _ = self.go_on(tmp_path)
        assert report.path == str(tmp_path / "ckpt_best_1.pth")
        assert [Path(skipped.path).name for skipped in report.skipped] == ["ckpt_best_2.pth"]
        assert path.exists()

    def test_one_may_be_named(self, tmp_path: Path) -> None:
        self.loop(tmp_path, range(3))
        _, report, _, _ = self.go_on(tmp_path / "new", tmp_path / "ckpt_best_0.pth")
        assert (report.path, report.epoch) == (str(tmp_path / "ckpt_best_0.pth"), 1)
        torch.save(dense_net(0).state_dict(), tmp_path / "weights.pth")
        with pytest.raises(ResumeError):
            self.go_on(tmp_path / "new", tmp_path / "weights.pth")
        (tmp_path / "junk.pth").write_bytes(b"junk")
        with pytest.raises(CkptfmtError, match=r"junk\.pth"):
            self.go_on(tmp_path / "new", tmp_path / "junk.pth")


class TestSetAside:
    """Damaged files are renamed where that is safe, and never removed."""

    def names(self, directory: Path) -> set[str]:
        return set(names(directory))

    def test_nothing_as_long_as_no_other_is_sound(self, tmp_path: Path) -> None:
        damage(put(tmp_path / "1.ckptfmt", 1))
        damage(put(tmp_path / "2.ckptfmt", 2))
        with pytest.raises(ResumeError):
            resume(tmp_path)
        assert self.names(tmp_path) == {"1.ckptfmt", "2.ckptfmt"}

    def test_a_name_that_is_taken_is_left_alone(self, tmp_path: Path) -> None:
        put(tmp_path / "1.ckptfmt", 1)
        (tmp_path / "2.ckptfmt.damaged").write_bytes(b"an earlier one")
        damage(put(tmp_path / "2.ckptfmt", 2))
        resume(tmp_path)
        assert self.names(tmp_path) == {"1.ckptfmt", "2.ckptfmt.damaged", "2.ckptfmt.damaged-2"}
        assert (tmp_path / "2.ckptfmt.damaged").read_bytes() == b"an earlier one"

    def test_not_what_may_be_of_another_run(self, tmp_path: Path) -> None:
        put(tmp_path / "1.ckptfmt", 1)
        put(tmp_path / "other.ckptfmt", 1, run_id="other", hour=-500)
        damage(put(tmp_path / "2.ckptfmt", 2), offset=-100)  # in the index: whose it is can't be told
        _, report = resume(tmp_path)
        assert report.skipped
        assert "2.ckptfmt" in self.names(tmp_path)

    def test_not_what_is_being_written(self, tmp_path: Path) -> None:
        put(tmp_path / "1.ckptfmt", 1)
        path = put(tmp_path / "2.ckptfmt", 2)
        damage(path)
        descriptor = os.open(path, os.O_WRONLY)
        try:
            resume(tmp_path)
            assert "2.ckptfmt" in self.names(tmp_path)
        finally:
            os.close(descriptor)
        resume(tmp_path)
        assert "2.ckptfmt" not in self.names(tmp_path)

    def test_not_what_a_newer_program_has_written_and_nothing_older_is_taken(self, tmp_path: Path) -> None:
        put(tmp_path / "1.ckptfmt", 1)
        newer = Path(__file__).parents[2] / "spec" / "vectors" / "invalid" / "3.2-major-2.ckptfmt"
        shutil.copyfile(newer, tmp_path / "2.ckptfmt")
        with pytest.raises(UndecidedError) as caught:
            resume(tmp_path)
        assert [Path(skipped.path).name for skipped in caught.value.skipped] == ["2.ckptfmt"]
        assert caught.value.code == 78
        assert self.names(tmp_path) == {"1.ckptfmt", "2.ckptfmt"}
        assert resume(tmp_path, tmp_path / "1.ckptfmt")[0] == "a 1 0"

    def test_several_at_once(self, tmp_path: Path) -> None:
        put(tmp_path / "1.ckptfmt", 1)
        for step in (2, 3, 4):
            damage(put(tmp_path / f"{step}.ckptfmt", step))
        value, report = resume(tmp_path)
        assert value == "a 1 0"
        assert len(report.skipped) == 3
        assert self.names(tmp_path) == {"1.ckptfmt", *(f"{step}.ckptfmt.damaged" for step in (2, 3, 4))}
