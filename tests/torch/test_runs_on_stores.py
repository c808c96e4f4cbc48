"""A run in a store that is unlike a disk: what stands beside its checkpoints, and what a bad store does to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.ops.directory.pins import pin, unpin
from ckptfmt._core.runs.pins import PIN
from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.buckets import memory
from ckptfmt._core.storage.buckets.doors import bucket_at, split_url
from ckptfmt._core.storage.buckets.memory import MemoryBucket
from ckptfmt._core.storage.buckets.store import BucketStore
from ckptfmt._core.storage.leases import hold as holds
from ckptfmt._core.storage.leases import holders
from ckptfmt._core.storage.leases.lease import Holder, Lease
from ckptfmt._core.storage.resolve import leases_in, locate, store_for
from ckptfmt._core.training.claiming import RunClaim
from ckptfmt.errors import HeldError, StorageError, SupersededError
from ckptfmt.testing.stores import content_of, names_in, publish
from ckptfmt.torch import Checkpointer
from tests.torch.directories import damage, names, steps
from tests.torch.tiny import run as run_tiny

ELSEWHERE = Holder("node7", 42, "another-boot", "", "2026-01-01T00:00:00Z", "slurm 9")


@pytest.fixture
def memory_url(tmp_path: Path) -> str:
    return f"memory://{tmp_path.parent.name}/{tmp_path.name}"


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        url: str = request.getfixturevalue("memory_url")
        return url
    return f"{request.getfixturevalue('s3').new_bucket()}/runs/digits"


def train(url: str, count: int = 3, **options: Any) -> Checkpointer:
    """Save after each step."""
    ckpt = Checkpointer(url, {"net": torch.nn.Linear(30, 30)}, save_interval_epochs=None, **options)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for number in ckpt.batches(range(100)):
            ckpt.step()
            ckpt.save(loss=1.0)
            ckpt.wait()
            if number + 1 == count:
                break
        break
    return ckpt


def save_and_wait(ckpt: Checkpointer) -> None:
    ckpt.save(loss=2)
    ckpt.wait()


@contextmanager
def stolen(url: str, holder: Holder | None = ELSEWHERE) -> Iterator[Lease]:
    """Let another process take over the run that is being saved in a store."""
    leases = leases_in(url)
    (lease,) = leases.all()
    theirs = Lease(lease.run_id, lease.generation + 1, "ff" * 16, holder)
    hold = leases.publish(theirs, lease)
    assert hold is not None
    yield theirs
    hold.close()


def test_every_save_has_a_name_of_its_own(url: str) -> None:
    for _ in range(2):
        ckpt = Checkpointer(url, {}, run_id="r")
        ckpt.resume(quiet=True)
        ckpt.save()
        ckpt.close()
    assert names(url) == ["ckpt-00000000-e0000.ckptfmt"] * 2
    assert len(scan(url)) == 2
    assert ckpt.train_url == url


def test_a_prefix_may_end_with_a_slash(url: str) -> None:
    ckpt = train(f"{url}/")
    assert ckpt.train_url == url
    assert ckpt.last_saved is not None
    assert ckpt.last_saved.path in [file.path for file in scan(url)]


def test_a_checkpoint_is_resumed_by_its_url(url: str) -> None:
    ckpt = train(url)
    ckpt.close()
    first, *_ = scan(url)
    again = Checkpointer(f"{url}/other", {"net": torch.nn.Linear(30, 30)})
    report = again.resume(first.path, quiet=True)
    assert (report.path, report.step) == (first.path, 1)
    again.save()
    again.close()
    assert steps(f"{url}/other") == [1]


def test_a_damaged_checkpoint_is_marked_and_not_resumed_from(url: str) -> None:
    train(url).close()
    *_, newest = scan(url)
    damage(newest.path)
    found = find_latest(url, verify=True)
    assert found.file is not None
    ckpt = Checkpointer(url, {"net": torch.nn.Linear(30, 30)})
    report = ckpt.resume(quiet=True)
    assert (report.step, report.path) == (2, found.file.path)
    assert [it.path for it in report.skipped] == [newest.path]
    ckpt.close()
    assert steps(url) == [1, 2]
    store, name = locate(newest.path)
    (marker,) = (found for found in store_marks(url) if name in found)
    assert content_of(store, name)
    small = store.read(marker)
    entry = store.look(name)
    assert small is not None
    assert entry is not None
    assert small.content == str(entry.version).encode()


def store_marks(url: str) -> list[str]:
    root, prefix = split_url(url)
    found = bucket_at(root, url).list(f"{prefix}/")
    return [it.key.removeprefix(f"{prefix}/") for it in found if it.key.endswith(".quarantined")]


def test_a_pin_is_for_the_checkpoint_that_it_names(url: str) -> None:
    train(url).close()
    first, second, third = scan(url)
    pin(first.path)
    store, name = locate(first.path)
    small = store.read(name + PIN)
    assert small is not None
    assert small.content.decode() == first.identity
    assert [file.pinned for file in scan(url)] == [True, False, False]
    publish(store, name, content_of(*locate(second.path)), replace=True)
    assert [file.pinned for file in scan(url)] == [False, False, False]
    assert pin(first.path).changed
    assert [file.pinned for file in scan(url)] == [True, False, False]
    assert not pin(first.path).changed
    assert unpin(first.path).changed
    store.swap(locate(third.path)[1] + PIN, None, b"by hand\n")
    assert [file.pinned for file in scan(url)] == [False, False, True]


# Two writers.


def test_a_run_that_is_taken_over_while_a_checkpoint_is_written_gets_no_more(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = train(url, 1)
    before = names_in(store_for(url))
    held = RunClaim.held
    looks = []

    def late(claim: RunClaim) -> Any:
        looks.append(claim)
        if len(looks) == 2:  # the first look is before the work
            with stolen(url):
                pass
        return held(claim)

    monkeypatch.setattr(RunClaim, "held", late)
    with pytest.raises(SupersededError, match=r"process 42 .*node7"):
        save_and_wait(ckpt)
    assert names_in(store_for(url)) == before
    ckpt.close()


def test_a_run_that_is_taken_over_before_it_is_tidied_loses_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt = train(url, 1, keep_last=1)
    make_durable = BucketStore.make_durable

    def and_steal(store: BucketStore, name: str) -> None:
        make_durable(store, name)
        with stolen(url):
            pass

    monkeypatch.setattr(BucketStore, "make_durable", and_steal)
    with pytest.raises(SupersededError):
        save_and_wait(ckpt)
    assert len(scan(url)) == 2
    ckpt.close()


def test_who_loses_the_run_is_told_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    monkeypatch.setattr("ckptfmt._core.training.claiming.notify", lambda *_: told.set())
    monkeypatch.setattr(holds, "BEAT_SECONDS", 0.01)
    ckpt = train(url, 1)
    with stolen(url):
        assert told.wait(60)
    ckpt.close()


def test_a_holder_elsewhere_keeps_the_run_while_it_shows_to_be_alive(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "WATCH_SECONDS", 60)
    monkeypatch.setattr(holds, "BEAT_SECONDS", 0.01)
    train(url, 1, run_id="r").close()
    leases = leases_in(url)
    (lease,) = leases.all()
    hold = leases.publish(Lease("r", 2, "ff" * 16, ELSEWHERE), lease)
    assert hold is not None
    hold.keep_alive(lambda: None)
    with pytest.raises(HeldError) as caught:
        Checkpointer(url, {}, run_id="r").resume(quiet=True)
    assert (caught.value.host, caught.value.pid, caught.value.code) == ("node7", 42, 78)
    hold.close()
    monkeypatch.setattr(holders, "WATCH_SECONDS", 0.05)
    ckpt = Checkpointer(url, {"net": torch.nn.Linear(30, 30)}, run_id="r")
    assert ckpt.resume(quiet=True).step == 1
    ckpt.save(loss=7)
    ckpt.close()
    assert max(file.metadata.generation or 0 for file in scan(url)) == 3


def test_what_had_to_give_way_is_not_resumed_from_however_far_it_was(url: str) -> None:
    ahead = train(url, 5, run_id="r")
    behind = Checkpointer(url, {"net": torch.nn.Linear(30, 30)}, run_id="r")
    assert behind.resume(scan(url)[1].path, quiet=True).step == 2
    behind.save(loss=3)
    behind.close()
    with pytest.raises(SupersededError):
        save_and_wait(ahead)
    found = find_latest(url).file
    assert found is not None
    assert (found.metadata.step, found.metadata.generation) == (2, 2)


# Bad stores.


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that ignores the conditions of requests, as some services do."""
    monkeypatch.setitem(memory._buckets, "careless", MemoryBucket(conditions=False))
    return "memory://careless/run"


def test_a_store_that_ignores_conditions_is_reported_and_serves_one_writer(
    careless: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = run_tiny(careless)
    said = capsys.readouterr().err
    assert said.count("ckptfmt: ") == 1
    assert careless in said.splitlines()[0]
    assert len(said.splitlines()) == 1 + 5, "each guarantee that is missing"
    assert run_tiny(tmp_path).lines == log.lines
    assert capsys.readouterr().err == "", "a directory guarantees all of them"


def test_a_store_of_fsspec_is_reported_and_serves_one_writer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec.register_implementation("inmemory", MemoryFileSystem)
    url = f"inmemory://{tmp_path.name}/run"
    log = run_tiny(url)
    said = capsys.readouterr().err
    assert said.count("ckptfmt: ") == 1
    assert url in said.splitlines()[0]
    assert run_tiny(tmp_path).lines == log.lines
    assert len(names(url)) == len(names(tmp_path))


def test_a_store_that_returns_something_else_than_was_sent_has_nothing_durable(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = train(memory_url, 2, keep_last=1)
    assert steps(memory_url) == [2]
    put = MemoryBucket.put

    def cut(self: MemoryBucket, key: str, content: bytes, **conditions: Any) -> Any:
        return put(self, key, content[:-1] if key.endswith(".ckptfmt") else content, **conditions)

    def flip(self: MemoryBucket, key: str, content: bytes, **conditions: Any) -> Any:
        changed = content[:-9] + b"?" + content[-8:] if key.endswith(".ckptfmt") else content
        return put(self, key, changed, **conditions)

    for number, disturbed in enumerate((cut, flip)):
        with monkeypatch.context() as patch:
            patch.setattr(MemoryBucket, "put", disturbed)
            ckpt.save(loss=5.0 + number)
            saved = ckpt.wait()
        assert isinstance(ckpt.last_error, StorageError)
        assert saved is not None
        assert [file.path for file in scan(memory_url) if file.usable] == [saved.path], "the good one stays"
    ckpt.save(loss=9)
    ckpt.close()
    assert ckpt.last_error is None
    assert [file.metadata.step for file in scan(memory_url) if file.usable] == [2]


def test_a_store_that_cannot_be_written_is_resumed_from_all_the_same(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(url, 1).close()

    def refuse(*_: object, **__: object) -> None:
        error = StorageError("read-only")
        error.errno = 30
        raise error

    ckpt = Checkpointer(url, {"net": torch.nn.Linear(30, 30)})
    with monkeypatch.context() as patch:
        patch.setattr(BucketStore, "swap", refuse)
        patch.setattr(BucketStore, "create", refuse)
        assert ckpt.resume(quiet=True).step == 1
        ckpt.save(loss=2)
        ckpt.wait()
        assert isinstance(ckpt.last_error, StorageError)
    assert "FAILED" in capsys.readouterr().err
    ckpt.save(loss=3)
    ckpt.close()
    assert len(scan(url)) == 2
