"""Leases that are objects (spec, annex B): replaced by compare-and-swap, and changed by a holder that is alive."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ckptfmt._core.storage.base import Store, Tag
from ckptfmt._core.storage.buckets.memory import MemoryBucket
from ckptfmt._core.storage.buckets.store import BucketStore
from ckptfmt._core.storage.leases import hold as holds
from ckptfmt._core.storage.leases.hold import Hold
from ckptfmt._core.storage.leases.holders import this_process
from ckptfmt._core.storage.leases.lease import Holder, Lease, lease_name
from ckptfmt._core.storage.leases.objects import ObjectLeases
from ckptfmt._core.storage.local.store import LocalStore
from ckptfmt._core.storage.resolve import leases_in
from ckptfmt.errors import LeaseError, StorageError

ELSEWHERE = Holder("node7", 42, "another-boot", "", "2026-01-01T00:00:00Z", "slurm 9")
MINE = Lease("r", 3, "ab" * 16, this_process({}))
THEIRS = Lease("r", 4, "cd" * 16, ELSEWHERE)


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path) if request.param == "local" else BucketStore(MemoryBucket(), "runs", "memory://a/runs")


def publish(store: Store, lease: Lease, before: Lease | None = None) -> Hold:
    hold = ObjectLeases(store).publish(lease, before)
    assert hold is not None
    return hold


@pytest.mark.parametrize("run_id", ["r", "é" * 128, "../../etc/passwd", "\x1b[2J\n", "run/1", "\0", "\ud800"], ids=repr)
@pytest.mark.parametrize("holder", [None, ELSEWHERE, replace(ELSEWHERE, job=None, launcher=7)])
def test_what_is_published_is_read(store: Store, run_id: str, holder: Holder | None) -> None:
    leases = ObjectLeases(store)
    lease = Lease(run_id, 2**63, "claim", holder)
    publish(store, lease).close()
    assert leases.read(run_id) == lease
    assert list(leases.all()) == [lease]
    assert leases.read("another") is None


def test_a_lease_replaces_the_one_that_was_read_and_no_other(store: Store) -> None:
    leases = ObjectLeases(store)
    publish(store, MINE)
    assert leases.publish(THEIRS, None) is None
    assert leases.publish(THEIRS, replace(MINE, generation=2)) is None
    assert leases.read("r") == MINE
    publish(store, THEIRS, MINE)
    assert leases.read("r") == THEIRS


def test_of_many_that_replace_a_lease_one_does(store: Store) -> None:
    barrier = threading.Barrier(8)

    def act(number: int) -> bool:
        barrier.wait()
        return ObjectLeases(store).publish(replace(MINE, claim=f"{number}"), None) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(act, range(8))) == 1


def test_a_holder_that_shows_to_be_alive_keeps_the_lease_and_is_replaced_all_the_same(store: Store) -> None:
    hold = publish(store, MINE)
    before = store.read(lease_name("r"))
    assert hold.touch()
    assert ObjectLeases(store).read("r") == MINE
    assert store.read(lease_name("r")) != before
    publish(store, THEIRS, MINE)
    assert not hold.touch(), "it notices"
    assert ObjectLeases(store).read("r") == THEIRS


def test_a_holder_shows_now_and_then_that_it_is_alive(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "BEAT_SECONDS", 0.01)
    hold = publish(store, replace(MINE, holder=ELSEWHERE))
    lost = threading.Event()
    hold.keep_alive(lost.set)
    lease = ObjectLeases(store).read("r")
    assert lease is not None
    assert ObjectLeases(store).seems_alive(lease, watch_seconds=60)
    assert not lost.is_set()
    publish(store, THEIRS, lease).close()
    assert lost.wait(60), "and notices that it is replaced"
    hold.close()


def test_a_holder_on_this_machine_is_asked_for(store: Store) -> None:
    leases = ObjectLeases(store)
    publish(store, MINE)
    assert leases.seems_alive(MINE, watch_seconds=0)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert MINE.holder is not None
    assert not leases.seems_alive(replace(MINE, holder=replace(MINE.holder, pid=child)), watch_seconds=600)
    assert not leases.seems_alive(replace(MINE, holder=None), watch_seconds=600)


def test_a_holder_elsewhere_that_is_silent_is_not_seen_to_live(store: Store) -> None:
    publish(store, THEIRS)
    assert not ObjectLeases(store).seems_alive(THEIRS, watch_seconds=0.1)


class Deaf(BucketStore):
    """A store whose answers get lost: what is asked for is done."""

    deaf = False

    def swap(self, name: str, expected: Tag | None, content: bytes, *, durably: bool = True) -> Tag | None:
        done = super().swap(name, expected, content)
        return None if self.deaf else done


def test_a_change_whose_answer_was_lost_counts() -> None:
    store = Deaf(MemoryBucket(), "", "memory://deaf")
    store.deaf = True
    hold = ObjectLeases(store).publish(MINE, None)
    assert hold is not None
    assert hold.touch()
    store.deaf = False
    assert hold.touch()
    with store.lock():
        store.deaf = True
    with store.lock():
        store.deaf = False


def test_a_store_that_does_not_answer_says_nothing_of_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BucketStore(MemoryBucket(), "", "memory://a")
    hold = publish(store, MINE)

    def fail(*_: object, **__: object) -> None:
        raise StorageError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(BucketStore, "swap", fail)
        assert hold.touch()
    assert hold.touch()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", json.dumps({"lease": 1}).encode()])
def test_what_is_no_lease_is_told_and_replaced_by_its_holder_only(store: Store, content: bytes) -> None:
    leases = ObjectLeases(store)
    store.swap(lease_name("r"), None, content)
    with pytest.raises(LeaseError) as caught:
        leases.read("r")
    assert leases.path("r") in str(caught.value)
    assert list(leases.all()) == []
    assert leases.make_room("r")
    assert leases.publish(MINE, THEIRS) is None
    publish(store, MINE)
    assert leases.read("r") == MINE


def test_a_lease_of_a_later_program_stays(store: Store) -> None:
    leases = ObjectLeases(store)
    store.swap(lease_name("r"), None, b'{"lease": 2}')
    assert not leases.make_room("r")
    for act in (lambda: leases.read("r"), lambda: leases.publish(MINE, None)):
        with pytest.raises(LeaseError):
            act()


def test_each_place_has_leases_of_its_kind(tmp_path: Path) -> None:
    assert isinstance(leases_in("memory://a/b"), ObjectLeases)
    assert not isinstance(leases_in(tmp_path), ObjectLeases)
    assert leases_in(tmp_path).path("r") == str(tmp_path / lease_name("r"))
