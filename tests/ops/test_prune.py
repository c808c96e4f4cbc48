from __future__ import annotations

import errno
import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from ckptfmt._core.ops.directory.pins import pin, unpin
from ckptfmt._core.ops.directory.prune import apply_prune, plan_prune
from ckptfmt._core.ops.progress import Progress
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt._core.storage.base import Tag
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.temporary import this_machine
from ckptfmt._core.storage.local.store import LocalStore
from ckptfmt.errors import StorageError, UsageError
from tests.ops.conftest import CREATED, STATE, Save, flip_byte

LAST = RetentionPolicy(keep_last=1)


def run(save: Save, *steps: int, run_id: str | None = "r") -> dict[int, Path]:
    return {
        step: save(f"{step}.ckptfmt", run_id=run_id, step=step, created=CREATED + timedelta(hours=step))
        for step in steps
    }


def test_a_plan_changes_nothing_and_its_json_says_it_all(save: Save, tmp_path: Path) -> None:
    paths = run(save, 1, 2)
    planned = plan_prune(tmp_path, LAST)
    document = json.loads(json.dumps(planned.to_json(), allow_nan=False))
    assert list(document) == [
        *("report", "directory", "run_id", "decisions", "frees_bytes", "applied", "removed", "failed", "damaged"),
        *("spared", "leftovers", "freed_bytes"),
    ]
    assert (document["report"], document["run_id"], document["applied"]) == ("prune/1", "r", False)
    newest, oldest = document["decisions"]
    assert list(newest) == [
        *("path", "keep", "concerned", "reasons", "file_bytes", "pinned", "verified", "metadata"),
    ]
    assert (newest["path"], newest["keep"], newest["reasons"]) == (str(paths[2]), True, ["newest", "last 1"])
    assert (oldest["path"], oldest["keep"], oldest["reasons"]) == (str(paths[1]), False, ["older than the newest"])
    assert document["frees_bytes"] == paths[1].stat().st_size
    assert all(path.exists() for path in paths.values())


def test_what_was_done_has_the_same_form(save: Save, tmp_path: Path) -> None:
    paths = run(save, 1, 2, 3)
    planned = plan_prune(tmp_path, LAST)
    result = apply_prune(planned)
    assert result.complete
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(document) == list(planned.to_json())
    assert document["applied"] is True
    assert document["removed"] == [str(paths[1]), str(paths[2])]
    assert document["freed_bytes"] == document["frees_bytes"]
    assert document["decisions"][0]["verified"] is True


def test_what_proved_to_be_damaged_and_what_is_spared_for_it_is_told(save: Save, tmp_path: Path) -> None:
    paths = run(save, 1, 2, 3)
    planned = plan_prune(tmp_path, LAST)
    flip_byte(paths[3], np.asarray(STATE["net"]["conv.weight"]).tobytes())
    result = apply_prune(planned)
    assert [file.path for file in result.damaged] == [str(paths[3])]
    assert [file.path for file in result.spared] == [str(paths[2])]
    assert not result.complete
    assert [file.path for file in result.report.removed] == [str(paths[1])]


def test_where_nothing_belongs_to_a_run_those_of_none_are_meant(save: Save, tmp_path: Path) -> None:
    paths = run(save, 1, 2, run_id=None)
    export = save("export.ckptfmt")
    apply_prune(plan_prune(tmp_path, LAST))
    assert not paths[1].exists()
    assert paths[2].exists()
    assert export.exists()


def test_what_writers_that_are_gone_have_left_goes_too(save: Save, tmp_path: Path) -> None:
    run(save, 1, 2)
    left = tmp_path / f".3.ckptfmt.{this_machine()}-0123456789abcdef.tmp"
    left.write_bytes(b"half")
    with AtomicFile(tmp_path / "4.ckptfmt"):
        result = apply_prune(plan_prune(tmp_path, LAST))
        assert len(list(tmp_path.glob(".*.tmp"))) == 1, "that of a living writer stays"
    assert result.to_json()["leftovers"] == [str(left)]
    assert not left.exists()


def test_a_metric_that_nothing_has_is_refused(save: Save, tmp_path: Path) -> None:
    for step in (1, 2):
        save(f"{step}.ckptfmt", run_id="r", step=step, metrics={"val_acc": 1 / step})
    with pytest.raises(UsageError, match=r"'val_accuracy'.*val_acc"):
        plan_prune(tmp_path, RetentionPolicy(keep_last=1, keep_best=("val_accuracy", "max", 1)))
    save("3.ckptfmt", run_id="r", step=3, metrics={"val_accuracy": 0.1})  # one that has it will do
    kept = plan_prune(tmp_path, RetentionPolicy(keep_last=1, keep_best=("val_accuracy", "max", 1))).plan.kept
    assert [file.name for file in kept] == ["3.ckptfmt"]


def test_a_file_of_another_format_is_left_alone(save: Save, tmp_path: Path) -> None:
    run(save, 1, 2)
    pretrained = tmp_path / "resnet50.pth"
    np.savez(tmp_path / "w", w=np.zeros(3))
    (tmp_path / "w.npz").rename(pretrained)
    result = apply_prune(plan_prune(tmp_path, LAST))
    assert pretrained.exists()
    (decision,) = [item for item in result.plan.decisions if item.file.path == str(pretrained)]
    assert (decision.keep, decision.concerned) == (True, False)


def test_progress_is_told_in_bytes_of_the_files_that_stay(save: Save, tmp_path: Path) -> None:
    paths = run(save, 1, 2)
    seen: list[Progress] = []
    apply_prune(plan_prune(tmp_path, LAST), progress=seen.append)
    assert {item.path for item in seen} == {str(paths[2])}
    assert all(item.done_bytes <= item.total_bytes == paths[2].stat().st_size for item in seen)


def test_a_pin_keeps_and_its_absence_does_not(save: Save, tmp_path: Path) -> None:
    paths = run(save, 1, 2)
    assert pin(paths[1]).to_json() == {"path": str(paths[1]), "pinned": True, "changed": True}
    assert not pin(paths[1]).changed
    assert not plan_prune(tmp_path, LAST).plan.removed
    assert unpin(paths[1]).changed
    assert not unpin(paths[1]).changed
    assert [file.path for file in plan_prune(tmp_path, LAST).plan.removed] == [str(paths[1])]


def test_what_is_not_there_gets_no_pin_and_leaves_none(tmp_path: Path) -> None:
    for act, path in [(pin, tmp_path / "a.ckptfmt"), (unpin, tmp_path / "a.ckptfmt"), (pin, tmp_path)]:
        with pytest.raises(StorageError) as caught:
            act(path)
        assert caught.value.errno == (errno.ENOENT if path != tmp_path else None)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_removed_while_it_is_pinned_is_an_error(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save()
    swap = LocalStore.swap

    def overtaken(self: LocalStore, name: str, expected: Tag | None, content: bytes) -> Tag | None:
        path.unlink()
        return swap(self, name, expected, content)

    monkeypatch.setattr(LocalStore, "swap", overtaken)
    with pytest.raises(StorageError) as caught:
        pin(path)
    assert caught.value.errno == errno.ENOENT
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".pin"] == []


def test_the_pin_of_a_file_that_is_gone_can_be_taken_away(save: Save) -> None:
    path = save()
    pin(path)
    path.unlink()
    assert unpin(path).changed
