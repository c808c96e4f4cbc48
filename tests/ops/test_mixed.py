"""Directories in which files of PyTorch stand beside ours, and files of PyTorch as one side of a question."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.ops.directory.listing import EntryState, list_directory
from ckptfmt._core.ops.directory.prune import apply_prune, plan_prune
from ckptfmt._core.ops.directory.verify import Verdict, verify_paths
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt._core.ops.inspection.resumable import Resumable
from ckptfmt._core.runs.retention import RetentionPolicy
from tests.ops.conftest import CREATED, Save, flip_byte

torch = pytest.importorskip("torch")

LAST = RetentionPolicy(keep_last=1)


def save_pth(directory: Path, epoch: int) -> Path:
    """Save as the loop does that PyTorch documents, at the end of an epoch."""
    torch.manual_seed(epoch)
    net = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    path = directory / f"ckpt_best_{epoch}.pth"
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, path)
    return path


@pytest.fixture
def directory(save: Save, tmp_path: Path) -> Path:
    """Return a directory in which a run of ours went on where the documented loop had stopped."""
    for epoch in (8, 9, 10):
        save_pth(tmp_path, epoch)
    for epoch in (12, 13):
        facts = {"epoch": epoch, "step": epoch * 10, "created": CREATED + timedelta(hours=epoch)}
        save(f"ckpt-{epoch}.ckptfmt", run_id="r", **facts)
    return tmp_path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


def test_both_are_listed_in_the_order_of_their_epochs(directory: Path) -> None:
    report = list_directory(directory)
    assert [entry.name for entry in report.entries] == [
        *("ckpt_best_8.pth", "ckpt_best_9.pth", "ckpt_best_10.pth", "ckpt-12.ckptfmt", "ckpt-13.ckptfmt"),
    ]
    assert report.count(EntryState.OK) == 5
    assert [entry.metadata.epoch for entry in report.entries] == [9, 10, 11, 12, 13]


def test_the_latest_is_that_with_the_most_epochs_of_both(directory: Path) -> None:
    def latest() -> str | None:
        report = find_latest(directory, verify=True)
        return None if report.file is None else report.file.name

    assert latest() == "ckpt-13.ckptfmt"
    save_pth(directory, 20)
    assert latest() == "ckpt_best_20.pth"
    data = (directory / "ckpt_best_20.pth").read_bytes()
    (directory / "ckpt_best_20.pth").write_bytes(data[: len(data) // 2])
    assert latest() == "ckpt-13.ckptfmt"


def test_pruning_a_run_leaves_files_of_no_run_alone(directory: Path) -> None:
    apply_prune(plan_prune(directory, LAST))
    assert names(directory) == ["ckpt-13.ckptfmt", "ckpt_best_10.pth", "ckpt_best_8.pth", "ckpt_best_9.pth"]


def test_those_of_no_run_can_be_pruned_by_their_epochs_and_not_by_their_names(directory: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), directory / "pretrained.pth")
    (directory / "broken.pth").write_bytes((directory / "ckpt_best_8.pth").read_bytes()[:-100])
    apply_prune(plan_prune(directory, RetentionPolicy(keep_last=1, runless=True)))
    assert names(directory) == [
        *("broken.pth", "ckpt-12.ckptfmt", "ckpt-13.ckptfmt", "ckpt_best_10.pth", "pretrained.pth"),
    ]


def test_a_directory_of_the_documented_loop_alone_is_pruned(tmp_path: Path) -> None:
    for epoch in (8, 9, 10, 11):
        save_pth(tmp_path, epoch)
    newest = tmp_path / "ckpt_best_11.pth"
    weights = torch.load(newest, weights_only=True)["net"]["weight"].numpy().tobytes()
    flip_byte(newest, weights)  # only the checksum of the data tells
    result = apply_prune(plan_prune(tmp_path, LAST))
    assert names(tmp_path) == ["ckpt_best_10.pth", "ckpt_best_11.pth"], "the newest that can be read to its end"
    assert [file.path for file in result.damaged] == [str(newest)]


def test_a_file_of_pytorch_can_be_looked_into_and_compared(tmp_path: Path, save: Save) -> None:
    path = save_pth(tmp_path, 3)
    report = inspect_file(path)
    assert report.metadata.epoch == 4
    (optimizer,) = report.state.optimizers
    assert (optimizer.kind, optimizer.steps) == ("AdamW", (1, 1))
    assert report.state.resume.answer is Resumable.INEXACTLY
    content = torch.load(path, weights_only=True)
    weights = {name: value.numpy() for name, value in content["net"].items()}
    same = save("same.ckptfmt", {"net": weights})
    changed = save("changed.ckptfmt", {"net": {**weights, "bias": weights["bias"] + np.float32(1)}})
    assert not diff_files(path, same).tensors
    (change,) = diff_files(path, changed, values=True).tensors
    assert change.values is not None
    assert change.values.max_abs == pytest.approx(1)


def test_verifying_a_file_of_pytorch_claims_no_more_than_it_can(tmp_path: Path) -> None:
    (file,) = verify_paths([save_pth(tmp_path, 3)]).files
    assert file.verdict is Verdict.READABLE


def test_numbers_beside_the_states_of_pth_files_are_metrics(tmp_path: Path) -> None:
    net = torch.nn.Linear(1, 1).state_dict()
    for epoch, loss in enumerate((0.5, 0.2, 0.3, 0.4)):
        numbers = {"val_loss": loss, "lr": 0.1, "best_acc": 3}
        torch.save({"net": net, "epoch": epoch, **numbers}, tmp_path / f"ckpt_{epoch}.pth")
    assert [entry.metadata.metrics for entry in list_directory(tmp_path).entries] == [
        {"val_loss": loss} for loss in (0.5, 0.2, 0.3, 0.4)
    ]
    policy = RetentionPolicy(keep_last=1, keep_best=("val_loss", "min", 1))
    apply_prune(plan_prune(tmp_path, policy))
    assert names(tmp_path) == ["ckpt_1.pth", "ckpt_3.pth"]
    ckptfmt.convert(tmp_path / "ckpt_1.pth", tmp_path / "a.ckptfmt", check=True)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert checkpoint.metadata.metrics == {"val_loss": 0.2}
