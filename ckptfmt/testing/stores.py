"""What every store has to do, as a class of tests (see `ckptfmt._core.storage.base`).

```python
class TestMyStore(StoreTests):
    @pytest.fixture
    def store(self):
        return MyStore(...)  # one that is empty
```
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from ckptfmt._core.storage.base import Store
from ckptfmt._core.storage.probing import probe
from ckptfmt._core.storage.resolve import locate
from ckptfmt.errors import ChangedError, StorageError
from ckptfmt.testing._coordination import THREADS, CoordinationTests
from ckptfmt.testing._objects import content_of, names_in, publish, version_of

__all__ = ["StoreTests", "content_of", "names_in", "publish"]

_NAMES = ("a.ckptfmt", "no-extension", ".hidden", "two words.ckptfmt", "a#b?c%20d&e+f.ckptfmt", "Zürich-東京.ckptfmt")


class StoreTests(CoordinationTests):
    """Tests of a store. Whoever inherits them gives the fixture `store`.

    Attributes:
        many: How many objects make more than one page of a listing.
        large: How many bytes make more than one part of an upload.
    """

    many = 250
    large = 40 << 20

    @pytest.fixture
    def store(self) -> Store:
        """Return an empty store."""
        raise NotImplementedError

    # What is published

    def test_a_new_store_is_empty(self, store: Store) -> None:
        assert list(store.list()) == []
        assert store.look("a.ckptfmt") is None
        assert store.read("a.ckptfmt") is None

    @pytest.mark.parametrize("name", _NAMES)
    def test_what_is_published_is_read_and_listed(self, store: Store, name: str) -> None:
        path = publish(store, name, b"content")
        assert path == store.path(name)
        assert content_of(store, name) == b"content"
        (entry,) = (entry for entry in store.list() if entry.name == name)
        assert entry == store.look(name)
        assert (entry.nbytes, entry.link) == (7, False)
        assert entry.version is not None

    def test_the_path_of_an_object_leads_to_it(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"content")
        found, name = locate(store.path("a.ckptfmt"))
        assert content_of(found, name) == b"content"
        assert found.path(name) == store.path("a.ckptfmt")

    def test_nothing_is_seen_before_it_is_published(self, store: Store) -> None:
        with store.create("a.ckptfmt") as file:
            file.write(b"content")
            assert "a.ckptfmt" not in names_in(store)
            assert store.look("a.ckptfmt") is None
            with pytest.raises(StorageError):
                store.open("a.ckptfmt")
            file.commit()
        assert content_of(store, "a.ckptfmt") == b"content"

    def test_what_is_given_up_is_never_seen(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"before")
        with store.create("a.ckptfmt", replace=True) as file:
            file.write(b"content")
        with pytest.raises(RuntimeError), store.create("a.ckptfmt", replace=True) as file:
            file.write(b"content")
            raise RuntimeError
        with store.create("a.ckptfmt", replace=True) as file:
            file.abort()
            file.abort()
            with pytest.raises(ValueError):
                file.commit()
        assert content_of(store, "a.ckptfmt") == b"before"
        assert names_in(store) == {"a.ckptfmt"}
        assert store.unfinished() == ()

    def test_many_objects_are_listed_once_each(self, store: Store) -> None:
        names = {f"{number}.ckptfmt" for number in range(self.many)}
        for name in names:
            store.swap(name, None, b"", durably=False)
        found = [entry.name for entry in store.list()]
        assert len(found) == len(names)
        assert set(found) == names

    def test_an_object_may_be_empty(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"")
        assert content_of(store, "a.ckptfmt") == b""

    # Writing

    def test_threads_write_in_any_order_and_what_they_leave_out_is_zero(self, store: Store) -> None:
        rng = random.Random(7)
        pieces = [(offset, rng.randbytes(1000)) for offset in range(0, 200_000, 1024)]
        expected = bytearray(pieces[-1][0] + 1000)
        for offset, piece in pieces:
            expected[offset : offset + 1000] = piece
        rng.shuffle(pieces)
        with store.create("a.ckptfmt", expected_bytes=len(expected)) as file:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda it: file.write_at(*it), pieces))
            assert file.position == len(expected)
            file.commit(written_bytes=1000 * len(pieces))
        assert content_of(store, "a.ckptfmt") == expected

    def test_large_objects_are_read_by_any_range(self, store: Store) -> None:
        block = random.Random(3).randbytes(1 << 20)
        with store.create("a.ckptfmt", expected_bytes=self.large) as file:
            for offset in range(0, self.large, len(block)):
                file.write_at(offset, block)
            file.commit()
        with closing(store.open("a.ckptfmt")) as source:
            assert source.size == self.large
            for offset, nbytes in [(0, 1), (self.large - 7, 7), (len(block) - 5, 10), (123_456, 2 << 20)]:
                start = offset % len(block)
                expected = (block[start:] + block * (nbytes // len(block) + 1))[:nbytes]
                assert source.read(offset, nbytes) == expected
                into = bytearray(nbytes)
                source.read_into(offset, memoryview(into))
                assert into == expected
                into = bytearray(nbytes)
                count = source.read_cached(offset, memoryview(into))
                assert into == expected[:count] + bytes(nbytes - count)
                view = source.view(offset, nbytes)
                assert view is None or (view == expected and view.readonly)
                private = source.private_view(offset, nbytes)
                if private is not None:
                    assert private == expected
                    private[:1] = b"?"
                    assert source.read(offset, nbytes) == expected
                    private[:1] = expected[:1]

    def test_bytes_that_were_not_written_or_written_twice_are_not_published(self, store: Store) -> None:
        with pytest.raises(StorageError), store.create("a.ckptfmt") as file:
            file.write_at(0, b"content")
            file.commit(written_bytes=8)
        with store.create("a.ckptfmt") as file:
            file.write_at(0, b"content")
            with pytest.raises((StorageError, ValueError)):
                file.write_at(3, b"t")
                file.commit()
        assert names_in(store) == set()

    # Names

    def test_nothing_is_replaced_unless_that_is_asked_for(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"first")
        second = publish(store, "a.ckptfmt", b"second")
        assert content_of(store, "a.ckptfmt") == b"first"
        assert second == store.path("a-2.ckptfmt")
        assert content_of(store, "a-2.ckptfmt") == b"second"

    def test_what_is_replaced_is_replaced_as_a_whole(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"first")
        before = version_of(store, "a.ckptfmt")
        assert publish(store, "a.ckptfmt", b"second!", replace=True) == store.path("a.ckptfmt")
        assert content_of(store, "a.ckptfmt") == b"second!"
        assert version_of(store, "a.ckptfmt") != before
        assert names_in(store) == {"a.ckptfmt"}

    def test_of_many_that_publish_under_one_name_none_is_lost_in_silence(self, store: Store) -> None:
        barrier = threading.Barrier(THREADS)

        def act(number: int) -> str | None:
            barrier.wait()
            try:
                return publish(store, "a.ckptfmt", b"%d" % number)
            except StorageError:
                return None

        with ThreadPoolExecutor(THREADS) as pool:
            paths = list(pool.map(act, range(THREADS)))
        published = {path: b"%d" % number for number, path in enumerate(paths) if path is not None}
        assert store.path("a.ckptfmt") in published
        assert len(published) == sum(path is not None for path in paths) == len(names_in(store))
        for path, content in published.items():
            assert content_of(*locate(path)) == content

    def test_the_guard_is_held_while_something_is_published(self, store: Store) -> None:
        told = []

        @contextmanager
        def guard() -> Iterator[None]:
            told.append("a.ckptfmt" in names_in(store))
            yield
            told.append("a.ckptfmt" in names_in(store))

        with store.create("a.ckptfmt", guard=guard) as file:
            file.write(b"content")
            file.commit()
        assert told == [False, True]

    def test_what_the_guard_refuses_is_not_published(self, store: Store) -> None:
        @contextmanager
        def guard() -> Iterator[None]:
            raise RuntimeError
            yield

        with pytest.raises(RuntimeError), store.create("a.ckptfmt", guard=guard) as file:
            file.write(b"content")
            file.commit()
        assert names_in(store) == set()
        assert store.unfinished() == ()

    # Reading

    def test_what_is_not_there_cannot_be_opened(self, store: Store) -> None:
        with pytest.raises(StorageError) as caught:
            store.open("a.ckptfmt")
        assert caught.value.errno == errno.ENOENT
        assert "a.ckptfmt" in str(caught.value)

    def test_ranges_outside_are_refused(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"content")
        with closing(store.open("a.ckptfmt")) as source:
            for offset, nbytes in [(-1, 2), (0, 8), (8, 0), (5, -1)]:
                with pytest.raises(ValueError):
                    source.read(offset, nbytes)
        source.close()
        with pytest.raises(ValueError):
            source.read(0, 1)

    def test_what_is_read_is_of_one_version(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"first")
        with closing(store.open("a.ckptfmt")) as source:
            publish(store, "a.ckptfmt", b"other", replace=True)
            assert read_or_told(lambda: source.read(0, 5)) in (b"first", None)
            store.remove("a.ckptfmt")
            assert read_or_told(lambda: source.read(0, 5)) in (b"first", None)

    def test_a_version_that_is_gone_is_not_opened(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"first")
        version = version_of(store, "a.ckptfmt")
        with closing(store.open("a.ckptfmt", version)) as source:
            assert source.read(0, 5) == b"first"
        publish(store, "a.ckptfmt", b"other", replace=True)
        with pytest.raises(ChangedError):
            store.open("a.ckptfmt", version)

    # Removal

    def test_what_is_removed_is_gone(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"content")
        publish(store, "b.ckptfmt", b"content")
        store.remove("a.ckptfmt", version_of(store, "a.ckptfmt"))
        assert names_in(store) == {"b.ckptfmt"}
        store.remove("a.ckptfmt")
        store.remove("b.ckptfmt")
        assert names_in(store) == set()

    def test_another_version_is_not_removed(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"first")
        version = version_of(store, "a.ckptfmt")
        publish(store, "a.ckptfmt", b"other", replace=True)
        with pytest.raises(ChangedError):
            store.remove("a.ckptfmt", version)
        assert content_of(store, "a.ckptfmt") == b"other"

    def test_what_is_put_aside_is_not_listed_and_not_lost(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"first")
        path = store.quarantine("a.ckptfmt", version_of(store, "a.ckptfmt"))
        assert not any(name.endswith(".ckptfmt") for name in names_in(store))
        assert content_of(*locate(path)) == b"first"
        publish(store, "a.ckptfmt", b"other", replace=True)
        assert "a.ckptfmt" in names_in(store), "a name is not condemned by what had it before"

    def test_another_version_is_not_put_aside(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"first")
        version = version_of(store, "a.ckptfmt")
        publish(store, "a.ckptfmt", b"other", replace=True)
        with pytest.raises(ChangedError):
            store.quarantine("a.ckptfmt", version)
        assert names_in(store) == {"a.ckptfmt"}

    def test_what_is_published_can_be_made_durable(self, store: Store) -> None:
        publish(store, "a.ckptfmt", b"content")
        store.make_durable("a.ckptfmt")
        with pytest.raises(StorageError):
            store.make_durable("b.ckptfmt")

    # Writers

    def test_what_a_living_writer_writes_is_not_cleaned(self, store: Store) -> None:
        with store.create("a.ckptfmt") as file:
            file.write(b"content")
            assert store.clean() == ()
            assert store.clean("a.ckptfmt") == ()
            assert all(it.writer == "living" for it in store.unfinished())
            file.commit()
        assert content_of(store, "a.ckptfmt") == b"content"
        assert not store.is_being_written("a.ckptfmt")
        store.forget_cached("a.ckptfmt")

    def test_the_store_keeps_what_it_claims(self, store: Store) -> None:
        before = names_in(store)
        report = probe(store)
        assert report.not_guaranteed == ()
        assert report.create_if_absent == store.properties.create_if_absent
        assert report.compare_and_swap == store.properties.compare_and_swap
        assert store.properties.connections >= 1
        assert names_in(store) == before


def read_or_told(read: Callable[[], bytes]) -> bytes | None:
    """Return what is read; None if it is told that it was changed."""
    try:
        return read()
    except ChangedError:
        return None
