"""Every store passes the suite for stores; one that ignores conditions is found out."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ckptfmt import StorageError
from ckptfmt._core.storage.base import Store
from ckptfmt._core.storage.buckets.memory import MemoryBucket, memory_bucket
from ckptfmt._core.storage.buckets.store import BucketStore
from ckptfmt._core.storage.local.store import LocalStore
from ckptfmt._core.storage.probing import probe
from ckptfmt._core.storage.resolve import locate, store_for
from ckptfmt.errors import UsageError
from ckptfmt.testing.stores import StoreTests, content_of, names_in, publish
from tests.s3_server import S3Server


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks, so that the store does not claim to compare")
class TestLocalStore(StoreTests):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path)


class TestMemoryStore(StoreTests):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return store_for(f"memory://{tmp_path.name}/runs/digits")


class TestS3Store(StoreTests):
    @pytest.fixture
    def store(self, s3: S3Server) -> Store:
        return store_for(f"{s3.new_bucket()}/runs/digits")


@pytest.fixture
def careless() -> Store:
    """A store that ignores the conditions of requests, as some services do."""
    return BucketStore(MemoryBucket(conditions=False), "", "memory://careless")


def test_a_store_that_ignores_conditions_is_found_out(careless: Store) -> None:
    report = probe(careless)
    assert not any(
        (
            report.create_if_absent,
            report.publish_if_absent,
            report.compare_and_swap,
            report.conditional_removal,
            report.pinned_reads,
        )
    )
    assert len(report.not_guaranteed) == 5
    assert list(careless.list()) == []


def test_a_store_that_ignores_conditions_serves_who_is_alone(careless: Store) -> None:
    content = b"content" * 40_000  # more than is read when an object is opened
    publish(careless, "a.ckptfmt", content)
    with careless.lock():
        assert publish(careless, "a.ckptfmt", b"second") == careless.path("a-2.ckptfmt")
    assert content_of(careless, "a.ckptfmt") == content
    with closing(careless.open("a.ckptfmt")) as source:
        careless.remove("a.ckptfmt")
        with pytest.raises(StorageError):
            source.read(0, 7)
    assert names_in(careless) == {"a-2.ckptfmt"}


@pytest.mark.parametrize("place", ["", "/runs", "/runs/digits/"])
def test_a_prefix_is_a_place_of_its_own(place: str, tmp_path: Path) -> None:
    store = store_for(f"memory://{tmp_path.name}{place}")
    publish(store, "a.ckptfmt", b"content")
    assert names_in(store) == {"a.ckptfmt"}
    for other in {"", "/runs", "/runs/digits"} - {place.rstrip("/")}:
        assert names_in(store_for(f"memory://{tmp_path.name}{other}")) == set()


def test_a_lock_of_a_holder_that_died_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt._core.storage.buckets.store._STALE_SECONDS", 0.05)
    store = BucketStore(MemoryBucket(), "", "memory://dead")
    store.swap(".ckptfmt.lock", None, b"of a process that is gone")
    with store.lock(wait_seconds=30):
        found = store.read(".ckptfmt.lock")
        assert found is not None
        assert found.content not in (b"", b"of a process that is gone")


def test_urls_of_files_are_paths(tmp_path: Path) -> None:
    publish(store_for(tmp_path.as_uri()), "two words.ckptfmt", b"content")
    assert (tmp_path / "two words.ckptfmt").read_bytes() == b"content"
    assert content_of(*locate((tmp_path / "two words.ckptfmt").as_uri())) == b"content"
    assert store_for(f"file://localhost{tmp_path}").location == str(tmp_path)
    assert locate("file:///a.ckptfmt")[0].location == "/"


@pytest.mark.parametrize(
    "location",
    [
        "nosuch://bucket/run",
        "s3:///run",
        "file://elsewhere/a",
        "file:a/b",
        "memory+x://a",
        "https://host/a?b=1",
        "",
        "a\0b",
    ],
)
def test_what_no_store_is_for_is_refused_by_name(location: str) -> None:
    if location == "file:a/b":
        assert store_for(location).location == location, "a file may have such a name"
        return
    with pytest.raises(StorageError) as caught:
        store_for(location)
    if "://" in location:
        with pytest.raises(StorageError, match=re.escape(f"{location}/a.ckptfmt: ")):
            locate(f"{location}/a.ckptfmt")
        assert location in str(caught.value)


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/run", "obstore"), ("nosuch://bucket/run", "fsspec")])
def test_without_the_extra_a_store_is_refused_and_the_extra_named(
    url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"ckptfmt._core.storage.buckets.{package}_bucket", raising=False)
    with pytest.raises(StorageError) as caught:
        store_for(url)
    assert all(word in str(caught.value) for word in (url, package, "ckptfmt[remote]"))


@pytest.mark.parametrize("url", ["s3://bucket/run", "https://host/a.ckptfmt", "memory://a/b", "file:///a/b"])
def test_a_url_that_became_a_path_is_refused(url: str) -> None:
    for act in (store_for, locate):
        with pytest.raises(UsageError, match=re.escape(str(Path(url)))):
            act(Path(url))


def test_the_name_of_a_bucket_is_no_object() -> None:
    with pytest.raises(StorageError):
        locate("memory://bucket")


def test_buckets_are_told_apart_by_name() -> None:
    assert memory_bucket("one") is memory_bucket("one")
    assert memory_bucket("one") is not memory_bucket("two")


def test_a_file_system_that_shows_what_is_being_written_is_left_clean(tmp_path: Path) -> None:
    fsspec.register_implementation("inmemory", MemoryFileSystem)
    store = store_for(f"inmemory://{tmp_path.name}/runs")
    with store.create("a.ckptfmt") as file:
        file.write(b"content")
    assert names_in(store) == set()
    assert publish(store, "a.ckptfmt", b"content") == store.path("a.ckptfmt")
    assert publish(store, "a.ckptfmt", b"other") == store.path("a-2.ckptfmt")
    assert content_of(store, "a.ckptfmt") == b"content"
    with closing(store.open("a.ckptfmt")) as source:
        publish(store, "a.ckptfmt", b"replaced", replace=True)
        assert source.read(0, 7) == b"content"
    assert len(probe(store).not_guaranteed) >= 3
