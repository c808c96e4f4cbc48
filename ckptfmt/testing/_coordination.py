"""Tests of how several programs agree in a store: small objects that are swapped, and locks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckptfmt._core.storage.base import Store
from ckptfmt.errors import LockedError
from ckptfmt.testing._objects import content_of, publish

__all__ = ["THREADS", "CoordinationTests"]

THREADS = 8


class CoordinationTests:
    """The part of `stores.StoreTests` that is about agreement."""

    # Small objects

    def test_a_small_object_is_created_once(self, store: Store) -> None:
        tag = store.swap("lease", None, b"1")
        assert tag is not None
        assert store.swap("lease", None, b"2") is None
        found = store.read("lease")
        assert found is not None
        assert (found.content, found.tag) == (b"1", tag)
        assert content_of(store, "lease") == b"1"

    def test_a_small_object_is_swapped_if_it_is_the_one_that_was_read(self, store: Store) -> None:
        first = store.swap("lease", None, b"1")
        assert first is not None
        second = store.swap("lease", first, b"2")
        assert second is not None
        assert store.swap("lease", first, b"3") is None
        found = store.read("lease")
        assert found is not None
        assert found.content == b"2"
        store.remove("lease")
        assert store.swap("lease", second, b"3") is None
        assert store.read("lease") is None

    def test_of_many_that_create_an_object_one_does(self, store: Store) -> None:
        barrier = threading.Barrier(THREADS)

        def act(number: int) -> bool:
            barrier.wait()
            return store.swap("lease", None, b"%d" % number) is not None

        with ThreadPoolExecutor(THREADS) as pool:
            assert sum(pool.map(act, range(THREADS))) == 1

    def test_no_swap_is_lost(self, store: Store) -> None:
        store.swap("counter", None, b"0")

        def count(_: int) -> None:
            while True:
                found = store.read("counter")
                assert found is not None
                if store.swap("counter", found.tag, b"%d" % (int(found.content) + 1), durably=False) is not None:
                    return

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(count, range(40)))
        found = store.read("counter")
        assert found is not None
        assert found.content == b"40"

    # Locks

    @pytest.mark.parametrize("lock", ["lock", "prune_lock"])
    def test_a_lock_has_one_holder_at_a_time(self, store: Store, lock: str) -> None:
        def try_it() -> bool:
            try:
                with getattr(store, lock)(wait_seconds=0.0):
                    return True
            except LockedError:
                return False

        with ThreadPoolExecutor(1) as other:
            with pytest.raises(RuntimeError), getattr(store, lock)():
                assert not other.submit(try_it).result()
                raise RuntimeError
            assert other.submit(try_it).result()
        assert try_it()

    def test_who_removes_checkpoints_may_take_the_other_lock_too_and_swap(self, store: Store) -> None:
        with store.prune_lock(), store.lock(), store.lock():
            tag = store.swap("lease", None, b"1")
            assert store.swap("lease", tag, b"2") is not None

    def test_nothing_is_lost_under_the_lock(self, store: Store) -> None:
        counts: list[int] = []

        def count(number: int) -> None:
            with store.lock():
                seen = len(counts)
                publish(store, f"{number}.ckptfmt", b"")
                assert len(counts) == seen
                counts.append(number)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(12)))
        assert len(counts) == 12
