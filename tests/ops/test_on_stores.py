"""The reports of a directory, on a store that is unlike a disk and on a directory: the same but for the paths."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import ckptfmt
from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.conversion.export import export
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.ops.directory.listing import Mark, list_directory
from ckptfmt._core.ops.directory.pins import pin, unpin
from ckptfmt._core.ops.directory.prune import apply_prune, plan_prune
from ckptfmt._core.ops.directory.verify import Verdict, verify_paths
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt._core.ops.members.extract import extract
from ckptfmt._core.ops.members.pack import pack
from ckptfmt._core.ops.members.strip import strip_file
from ckptfmt._core.runs.quarantine import is_at_rest, quarantine
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt._core.runs.scan import scan, verified
from ckptfmt._core.storage.resolve import locate, store_for
from ckptfmt.errors import LockedError, StorageError
from ckptfmt.testing.stores import content_of, names_in, publish

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["local", "file", "memory", "s3", "fsspec"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3').new_bucket()}/runs/digits"
    if request.param == "fsspec":
        fsspec.register_implementation("inmemory", MemoryFileSystem)
        return f"inmemory://{tmp_path.name}/runs/digits"
    places = {"local": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{tmp_path.name}/runs/digits"}
    return places[request.param]


def save(place: str, step: int, run_id: str = "r", seed: int = 0) -> str:
    weights = np.random.default_rng(step + 100 * seed).standard_normal(5000)
    facts = {"step": step, "run_id": run_id, "metrics": {"loss": 1 / step}, "created": START + timedelta(hours=step)}
    return ckptfmt.save({"net": {"w": weights}}, store_for(place).path(f"{step}.ckptfmt"), **facts).path  # type: ignore[arg-type]  # of several kinds


def damage(path: str) -> None:
    store, name = locate(path)
    content = bytearray(content_of(store, name))
    content[8192] ^= 1
    publish(store, name, bytes(content), replace=True)


def test_ls_latest_and_verify_tell_what_they_tell_of_a_directory(place: str, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    for step in (1, 2, 3):
        save(place, step)
        save(str(beside), step)
    pin(save(place, 2))
    pin(save(str(beside), 2))

    def told(directory: str) -> str:
        reports = (
            list_directory(directory).to_json(),
            find_latest(directory, verify=True).to_json(),
            verify_paths([directory]).to_json(),
            plan_prune(directory, RetentionPolicy(keep_last=1)).to_json(),
        )
        return json.dumps(reports).replace(directory, "PLACE").replace(store_for(directory).location, "PLACE")

    assert told(place) == told(str(beside))
    assert find_latest(place).file == scan(place)[-1]


def test_the_newest_that_verifies_is_found_and_the_damaged_one_put_aside(place: str) -> None:
    paths = {step: save(place, step) for step in (1, 2, 3)}
    damage(paths[3])
    assert [file.verdict for file in verify_paths([place]).files] == [Verdict.SOUND, Verdict.SOUND, Verdict.DAMAGED]
    report = find_latest(place, verify=True)
    assert report.file is not None
    assert (report.file.path, [it.path for it in report.skipped]) == (paths[2], [paths[3]])
    *_, broken = scan(place)
    assert verified(broken).error is not None
    assert is_at_rest(broken)
    name = quarantine(broken)
    assert [file.path for file in scan(place)] == [paths[1], paths[2]]
    assert len(content_of(store_for(place), name)) == broken.file_bytes


def test_prune_keeps_what_is_pinned_newest_or_new(place: str) -> None:
    paths = {step: save(place, step) for step in range(1, 7)}
    assert pin(paths[2]).changed
    assert not pin(paths[2]).changed
    entries = {entry.path: entry.marks for entry in list_directory(place).entries}
    assert Mark.PINNED in entries[paths[2]]
    planned = plan_prune(place, RetentionPolicy(keep_last=2))
    assert [file.path for file in planned.plan.removed] == [paths[1], paths[3], paths[4]]
    save(place, 3, seed=1)  # of the same name, and another version
    pin(paths[4])
    result = apply_prune(planned)
    assert [file.path for file in result.report.removed] == [paths[1]]
    assert [file.path for file in scan(place)] == [paths[step] for step in (2, 3, 4, 5, 6)]
    for step in (2, 4):
        assert unpin(paths[step]).changed
    result = apply_prune(plan_prune(place, RetentionPolicy(keep_last=2)))
    assert result.complete
    assert [file.path for file in scan(place)] == [paths[5], paths[6]]
    assert not unpin(paths[5]).changed


def test_what_is_damaged_counts_as_nothing_and_stays(place: str) -> None:
    paths = {step: save(place, step) for step in range(1, 5)}
    planned = plan_prune(place, RetentionPolicy(keep_last=1))
    damage(paths[4])
    result = apply_prune(planned)
    assert [file.path for file in result.spared] == [paths[3]]
    assert [file.path for file in scan(place)] == [paths[3], paths[4]]


def test_two_prunes_do_not_work_at_once(place: str) -> None:
    for step in (1, 2):
        save(place, step)
    planned = plan_prune(place, RetentionPolicy(keep_last=1))
    with store_for(place).prune_lock(), pytest.raises(LockedError):
        apply_prune(planned)
    assert apply_prune(planned).complete


def test_what_is_not_there_cannot_be_pinned(place: str) -> None:
    path = store_for(place).path("a.ckptfmt")
    for act in (pin, unpin):
        with pytest.raises(StorageError):
            act(path)
    assert names_in(store_for(place)) == set()


def test_checkpoints_of_two_places_are_compared(place: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert diff_files(save(place, 1), save(str(other), 1)).same
    assert not diff_files(save(place, 1), save(str(other), 2)).same


def test_files_of_other_formats_are_read_and_written_there(place: str, tmp_path: Path) -> None:
    path, store = save(place, 1), store_for(place)
    for name in ("a.safetensors", "a.npz", "a.pth"):
        export(path, store.path(name))
        assert inspect_file(store.path(name)).tensor_bytes == inspect_file(path).tensor_bytes
        assert diff_files(path, store.path(name), tolerance=0.0).components[0].same
    report = convert(store.path("a.pth"), store.path("b.ckptfmt"))
    assert report.target_bytes == len(content_of(store, "b.ckptfmt"))
    strip_file(path, store.path("c.ckptfmt"), drop=[])
    assert diff_files(path, store.path("c.ckptfmt")).same
    with pytest.raises(StorageError):
        convert(store.path("a.pth"), store.path("a.pth"))
    extract(path, tmp_path / "members")
    pack(tmp_path / "members", store.path("d.ckptfmt"))
    assert content_of(store, "d.ckptfmt") == content_of(store, "1.ckptfmt")
