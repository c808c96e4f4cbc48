"""Checkpoints of several files: removed, pinned and put aside whole, the file that stands for all of them first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core import pruning
from ckptfmt._core.ops.directory.pins import pin
from ckptfmt._core.pruning import apply_retention
from ckptfmt._core.runs.quarantine import is_at_rest, quarantine
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import RetentionPolicy, plan_retention
from ckptfmt._core.runs.scan import EXTENSION, Look, look_at_native, scan
from ckptfmt._core.storage.base import Store, Version
from ckptfmt._core.storage.resolve import locate, store_for
from ckptfmt.errors import StorageError
from ckptfmt.testing.stores import names_in, publish

START = datetime(2026, 3, 1, tzinfo=UTC)
LAST = RetentionPolicy(keep_last=1)


def look_at_both(path: str) -> CheckpointReference:
    """Look at a checkpoint of two files, as the format may have them one day: `N.ckptfmt` stands for `N.part`, too."""
    store, name = locate(path)
    part = store.look(name.replace(EXTENSION, ".part"))
    if part is None:
        return CheckpointReference(path, error=StorageError(f"{path}: a part is missing"))
    return replace(look_at_native(path), parts=(part,))


LOOKS: Mapping[str, Look] = {EXTENSION: look_at_both}


@pytest.fixture(autouse=True)
def _of_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "scan_all", lambda directory, *, inert: scan(directory, looks=LOOKS))


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return store_for(tmp_path if request.param == "local" else f"memory://{tmp_path.name}/runs")


def save(store: Store, step: int) -> None:
    publish(store, f"{step}.part", b"x" * 1000)
    facts = {"step": step, "created": START + timedelta(hours=step), "run_id": "r"}
    ckptfmt.save({"net": {"w": np.ones(9)}}, store.path(f"{step}{EXTENSION}"), **facts)  # type: ignore[arg-type]  # of several kinds


def prune(store: Store) -> pruning.RetentionReport:
    agreed = plan_retention(scan(store.location, looks=LOOKS), LAST).removed
    return apply_retention(store.location, LAST, agreed)


def test_a_checkpoint_is_known_again_by_all_of_its_files(store: Store) -> None:
    save(store, 1)
    (file,) = known = scan(store.location, looks=LOOKS)
    assert [it.name for it in file.files] == ["1.ckptfmt", "1.part"]
    assert file.file_bytes == sum(it.nbytes or 0 for it in store.list())
    looked: list[str] = []

    def look(path: str) -> CheckpointReference:
        looked.append(path)
        return look_at_both(path)

    assert scan(store.location, known, {EXTENSION: look}) == known
    assert looked == []
    publish(store, "1.part", b"y" * 999, replace=True)
    assert scan(store.location, known, {EXTENSION: look})[0].parts != file.parts
    assert len(looked) == 1


def test_all_of_its_files_are_removed_the_first_one_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        save(store, step)
    removed: list[str] = []
    remove = type(store).remove

    def note(self: Store, name: str, version: Version | None = None) -> None:
        removed.append(name)
        remove(self, name, version)

    monkeypatch.setattr(type(store), "remove", note)
    report = prune(store)
    assert removed == ["1.ckptfmt", "1.part", "2.ckptfmt", "2.part"]
    assert [file.name for file in report.removed] == ["1.ckptfmt", "2.ckptfmt"]
    assert names_in(store) == {"3.ckptfmt", "3.part"}
    assert report.freed_bytes > 2000


@pytest.mark.parametrize("kept", ["ckptfmt", "part"])
def test_a_pin_of_one_of_its_files_keeps_all(store: Store, kept: str) -> None:
    for step in (1, 2):
        save(store, step)
    agreed = plan_retention(scan(store.location, looks=LOOKS), LAST).removed
    pin(store.path(f"1.{kept}"))
    report = apply_retention(store.location, LAST, agreed)
    assert report.removed == ()
    assert {"1.ckptfmt", "1.part", "2.ckptfmt", "2.part"} < names_in(store)


def test_one_of_which_a_part_changed_since_it_was_agreed_to_stays(store: Store) -> None:
    for step in (1, 2):
        save(store, step)
    agreed = plan_retention(scan(store.location, looks=LOOKS), LAST).removed
    publish(store, "1.part", b"of another program", replace=True)
    assert apply_retention(store.location, LAST, agreed).removed == ()
    assert names_in(store) == {"1.ckptfmt", "1.part", "2.ckptfmt", "2.part"}


def test_what_is_left_when_a_removal_ends_in_the_middle_is_no_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(store, step)
    remove = type(store).remove

    def refuse(self: Store, name: str, version: Version | None = None) -> None:
        if name == "1.part":
            raise StorageError(f"{self.path(name)}: cannot be removed: refused")
        remove(self, name, version)

    monkeypatch.setattr(type(store), "remove", refuse)
    report = prune(store)
    assert [file.name for file in report.removed] == ["1.ckptfmt", "2.ckptfmt"]
    assert [(it.path, it.reason) for it in report.failed] == [(store.path("1.part"), "cannot be removed: refused")]
    assert [file.name for file in scan(store.location, looks=LOOKS)] == ["3.ckptfmt"]


def test_all_of_what_stays_is_made_durable_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save(store, step)

    def refuse(self: Store, name: str) -> None:
        if name == "2.part":
            raise StorageError(f"{self.path(name)}: cannot be made durable: refused")

    monkeypatch.setattr(type(store), "make_durable", refuse)
    with pytest.raises(StorageError, match="refused"):
        prune(store)
    assert names_in(store) == {"1.ckptfmt", "1.part", "2.ckptfmt", "2.part"}


def test_it_is_put_aside_whole(store: Store) -> None:
    save(store, 1)
    (file,) = scan(store.location, looks=LOOKS)
    assert is_at_rest(file)
    quarantine(file)
    assert not {"1.ckptfmt", "1.part"} & names_in(store)
