"""Old checkpoints go while the training runs: by the policy, after the new one is durable, and never the last good."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptfmt.torch
from ckptfmt import StorageError
from ckptfmt._core.ops.directory.listing import Mark, list_directory
from ckptfmt._core.ops.directory.pins import pin
from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.temporary import this_machine
from ckptfmt.errors import UsageError
from ckptfmt.torch import Checkpointer
from tests.torch.directories import names
from tests.torch.training import dense_net

LOSSES = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0, 8.0]


def train(directory: str | Path, losses: list[float] = LOSSES, **policy: Any) -> Checkpointer:
    """Save after each step, with the loss as a metric."""
    ckpt = Checkpointer(directory, {"net": dense_net(0)}, save_interval_steps=1, save_interval_epochs=None, **policy)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for loss in ckpt.batches(losses):
            ckpt.step(loss=loss)
            ckpt.wait()
        break
    ckpt.close()
    return ckpt


def steps_in(place: str | Path) -> list[int]:
    """Return the steps of the checkpoints in a place, every byte of which is right."""
    steps = []
    for file in scan(place):
        with ckptfmt.torch.open(file.path) as checkpoint:
            assert checkpoint.verify() == ()
            steps.append(checkpoint.metadata.step or 0)
    return sorted(steps)


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"keep_last": 1}, [8]),
        ({"keep_last": 3}, [6, 7, 8]),
        ({"keep_last": 20}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"keep_best": ("loss", "min")}, [2, 8]),
        ({"keep_best": ("loss", "max")}, [8]),
        ({"keep_best": ("loss", "min", 3)}, [2, 4, 5, 8]),
        ({"keep_best": ("absent", "min")}, [8]),
        ({"keep_every_steps": 3}, [3, 6, 8]),
        ({"keep_last": 2, "keep_best": ("loss", "min"), "keep_every_steps": 5}, [2, 5, 7, 8]),
    ],
    ids=str,
)
def test_what_a_policy_keeps(place: str, policy: dict[str, Any], left: list[int]) -> None:
    train(place, **policy)
    assert steps_in(place) == left


def test_a_loss_that_is_no_number_is_never_the_best(place: str) -> None:
    train(place, [3.0, float("nan"), float("-inf"), 4.0], keep_best=("loss", "min"))
    assert steps_in(place) == [1, 4]


def test_a_pin_keeps_a_checkpoint(place: str) -> None:
    train(place, LOSSES[:3])
    pin(scan(place)[1].path)
    ckpt = Checkpointer(place, {"net": dense_net(0)}, keep_last=1)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(2):
        pass
    assert steps_in(place) == [2, 3]


def test_checkpoints_of_other_runs_and_other_files_stay(tmp_path: Path) -> None:
    train(tmp_path, LOSSES[:2], run_id="other")
    ckptfmt.torch.save({"net": dense_net(0).state_dict()}, tmp_path / "pretrained.ckptfmt")
    (tmp_path / "ckpt-00000009-e0000.ckptfmt").write_bytes(b"nobody knows what this was")
    (tmp_path / "notes.txt").touch()
    before = set(names(tmp_path))
    (tmp_path / "ckpt-00000009-e0000.ckptfmt").rename(tmp_path / "away")
    ckpt = Checkpointer(tmp_path, {"net": dense_net(0)}, run_id="mine", save_interval_steps=1, keep_last=1)
    ckpt.resume(quiet=True)
    (tmp_path / "away").rename(tmp_path / "ckpt-00000009-e0000.ckptfmt")
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(4)):
            ckpt.step()
    mine = set(names(tmp_path)) - before
    assert mine == {"ckpt-00000004-e0001.ckptfmt"}
    assert before <= set(names(tmp_path))


def test_nothing_goes_as_long_as_saves_fail(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train(place, LOSSES[:3])

    def full(path: str, *_: object, **__: object) -> None:
        raise StorageError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr("ckptfmt._core.training.saving.run_writer.write_plan", full)
    ckpt = Checkpointer(place, {"net": dense_net(0)}, save_interval_steps=1, keep_last=1)
    ckpt.resume(quiet=True)
    ckpt.save()
    assert ckpt.wait() is None
    assert "No space left" in str(ckpt.last_error)
    ckpt.close()
    assert steps_in(place) == [1, 2, 3]


def test_what_cannot_be_removed_is_told_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    ckpt = train(tmp_path, LOSSES[:3], keep_last=1, on_failed_save="raise")
    monkeypatch.undo()
    assert steps_in(tmp_path) == [1, 2, 3]
    assert str(tmp_path) in str(ckpt.last_error)
    assert len(re.findall(r"^ckptfmt: ", capsys.readouterr().err, re.MULTILINE)) == 3


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "I/O"), RecursionError("deep")], ids=repr)
def test_a_checkpoint_is_saved_whatever_happens_to_the_old_ones(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ckptfmt._core.training.saving.tidying.prune_run", fail)
    ckpt = train(place, LOSSES[:3], keep_last=1, on_failed_save="raise")
    assert steps_in(place) == [1, 2, 3]
    assert ckpt.last_saved is not None
    assert ckpt.last_saved.path == scan(place)[-1].path
    assert type(error).__name__ in str(ckpt.last_error)
    assert len(re.findall(r"^ckptfmt: ", capsys.readouterr().err, re.MULTILINE)) == 3


@pytest.mark.parametrize(
    "policy",
    [{"keep_last": 0}, {"keep_every_steps": -1}, {"keep_best": ("loss", "least")}, {"keep_best": ("loss", "min", 0)}],
    ids=str,
)
def test_policies_that_make_no_sense(tmp_path: Path, policy: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Checkpointer(tmp_path, {}, **policy)


def test_a_resumed_run_goes_on_tidying(place: str) -> None:
    train(place, LOSSES[:4])
    ckpt = Checkpointer(place, {"net": dense_net(1)}, keep_best=("loss", "min"))
    ckpt.resume(quiet=True)
    ckpt.save(loss=torch.tensor(9.0))
    ckpt.close()
    assert steps_in(place) == [2, 4]


def test_saves_remove_what_killed_ones_have_left_and_nothing_that_is_being_written(tmp_path: Path) -> None:
    left = tmp_path / f".ckpt-00000003.ckptfmt.{this_machine()}-0123456789abcdef.tmp"
    left.write_bytes(b"half")
    with AtomicFile(tmp_path / "another.ckptfmt"):
        train(tmp_path)
        assert len(list(tmp_path.glob(".*.tmp"))) == 1
    assert not left.exists()


def test_ls_marks_as_best_what_is_kept_as_best(tmp_path: Path) -> None:
    ckpt = Checkpointer(
        tmp_path, {"net": dense_net(0)}, save_interval_steps=2, keep_last=2, keep_best=("quality", "max")
    )
    ckpt.resume(quiet=True)
    for epoch in ckpt.epochs(4):
        for _ in ckpt.batches(range(3)):
            ckpt.step(loss=1 / (ckpt.global_step + 1))
        ckpt.end_epoch(quality=[0.1, 0.9, 0.2, 0.3][epoch])
    ckpt.close()
    best = [entry for entry in list_directory(tmp_path).entries if Mark.BEST in entry.marks]
    assert [entry.metadata.metrics for entry in best] == [{"quality": 0.9}]
