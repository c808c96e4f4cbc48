"""What only a server shows of an object store: uploads in parts, failing requests, and what the environment says."""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.base import Store
from ckptfmt._core.storage.resolve import locate, store_for, use_store_options
from ckptfmt._core.storage.upload import part_bytes_for
from ckptfmt.errors import ChangedError, StorageError, UsageError
from ckptfmt.testing.stores import content_of, names_in, publish
from tests.faulty_proxy import CUT, Proxy, Request, proxy
from tests.s3_server import S3Server

MIB = 1 << 20


@pytest.fixture
def faulty(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy in front of the server, named by the environment."""
    with proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture
def store(s3: S3Server, faulty: Proxy) -> Store:
    return store_for(f"{s3.new_bucket()}/runs")


def uploads(store: Store, s3: S3Server) -> int:
    """Return the number of unfinished uploads that the server knows."""
    bucket = store.location.removeprefix("s3://").partition("/")[0]
    return s3.request("GET", f"{bucket}?uploads").count(b"<Upload>")


def write(store: Store, name: str, mebibytes: int) -> None:
    with store.create(name) as file:
        for number in range(mebibytes):
            file.write(bytes([number % 251]) * MIB)
        file.commit()


def test_a_large_object_is_sent_in_parts_of_one_length(store: Store, s3: S3Server, faulty: Proxy) -> None:
    write(store, "a.ckptfmt", 70)
    parts = [request for request in faulty.requests if "partNumber" in request.path]
    assert len(parts) == 5
    assert len(content_of(store, "a.ckptfmt")) == 70 * MIB
    assert uploads(store, s3) == 0


@pytest.mark.parametrize("failing", ["writer", "part", "completion"])
def test_an_upload_that_fails_leaves_nothing(store: Store, s3: S3Server, faulty: Proxy, failing: str) -> None:
    def refuse(request: Request) -> int | None:
        part, complete = "partNumber=3" in request.path, request.method == "POST" and "uploadId" in request.path
        return 403 if (failing == "part" and part) or (failing == "completion" and complete) else None

    faulty.before = refuse
    with pytest.raises((StorageError, ZeroDivisionError)), store.create("a.ckptfmt") as file:  # noqa: PT012 - either may fail
        for number in range(70):
            file.write(bytes([number]) * MIB)
        if failing == "writer":
            raise ZeroDivisionError
        file.commit()
    assert names_in(store) == set()
    assert uploads(store, s3) == 0


def test_parts_and_completions_that_fail_are_sent_again(store: Store, faulty: Proxy) -> None:
    seen: set[str] = set()

    def once(request: Request) -> int | None:
        if request.path in seen or not ("partNumber" in request.path or request.method == "POST"):
            return None
        seen.add(request.path)
        return (503, CUT)[len(seen) % 2]

    faulty.before = once
    write(store, "a.ckptfmt", 70)
    assert len(seen) >= 6
    assert len(content_of(store, "a.ckptfmt")) == 70 * MIB


def upload_and_tell(location: str, environment: dict[str, str], told: Connection) -> None:
    os.environ.update(environment)
    store = store_for(location)
    publish(store, "warm", bytes(MIB))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write(store, "a.ckptfmt", 400)
    told.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


@pytest.mark.skipif(sys.platform != "linux", reason="others count memory in other units")
def test_memory_is_bounded_by_the_parts_in_flight(s3: S3Server, context: ForkServerContext) -> None:
    here, there = context.Pipe()
    location = f"{s3.new_bucket()}/runs"
    process = context.Process(target=upload_and_tell, args=(location, s3.environment, there))
    process.start()
    grown = here.recv()
    process.join()
    assert grown < 14 * part_bytes_for(None) < 400 * MIB
    entry = store_for(location).look("a.ckptfmt")
    assert entry is not None
    assert entry.nbytes == 400 * MIB


@pytest.mark.parametrize(
    ("nbytes", "part_bytes"),
    [(None, 16 * MIB), (0, 16 * MIB), (100 << 30, 16 * MIB), (5 << 40, -((5 << 40) // -9000))],
)
def test_parts_are_as_many_as_services_take(nbytes: int | None, part_bytes: int) -> None:
    assert part_bytes_for(nbytes) == part_bytes
    assert (nbytes or 0) / part_bytes <= 10_000


def test_an_object_that_is_replaced_while_it_is_read_is_no_mixture(store: Store) -> None:
    write(store, "a.ckptfmt", 3)
    with closing(store.open("a.ckptfmt")) as source:
        assert source.read(MIB, 10) == b"\1" * 10
        with store.create("a.ckptfmt", replace=True) as file:
            file.write(bytes(3 * MIB))
            file.commit()
        with pytest.raises(ChangedError):
            source.read(0, 10)
        with pytest.raises(ChangedError):
            source.read(0, 2 * MIB)


def test_small_reads_that_are_close_together_are_one_request(store: Store, faulty: Proxy) -> None:
    write(store, "a.ckptfmt", 4)
    faulty.reset()
    with closing(store.open("a.ckptfmt")) as source:
        for offset in range(0, MIB, 1000):
            assert source.read(offset, 10) == bytes(10)
        assert source.read(MIB - 5, 10) == b"\0" * 5 + b"\1" * 5
        assert source.read(source.size - 1000, 1000) == b"\3" * 1000
    assert len(faulty.requests) == 3, "the end, and two blocks"


def test_a_checkpoint_is_inspected_by_a_few_requests(store: Store, faulty: Proxy) -> None:
    state = {"net": {f"p{number}": np.full(300_000, number, dtype=np.float32) for number in range(30)}}
    path = store.path("a.ckptfmt")
    ckptfmt.save(state, path, step=7)
    faulty.reset()
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.metadata.step == 7
        assert checkpoint["net"]["p29"].shape == (300_000,)
    assert len(faulty.requests) <= 3
    faulty.reset()
    np.testing.assert_array_equal(ckptfmt.load(path)["net"]["p7"], state["net"]["p7"])
    assert len(faulty.requests) <= 45


def test_a_bucket_that_does_not_exist_is_named(s3: S3Server) -> None:
    store = store_for("s3://no-such-bucket/runs")
    with pytest.raises(StorageError) as caught:
        publish(store, "a.ckptfmt", b"content")
    assert "s3://no-such-bucket" in str(caught.value)
    with pytest.raises(StorageError) as caught:
        list(store.list())
    assert re.search("s3://no-such-bucket/runs.*NoSuchBucket", str(caught.value))


def test_denied_access_is_no_absence(store: Store, faulty: Proxy) -> None:
    write(store, "a.ckptfmt", 1)
    faulty.before = lambda _: 403
    for act in (lambda: store.look("a.ckptfmt"), lambda: store.open("a.ckptfmt"), lambda: store.read("a.ckptfmt")):
        with pytest.raises(StorageError) as caught:
            act()
        assert caught.value.errno == 13
        assert store.path("a.ckptfmt") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_bytes_are_those_of_a_file(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    state = {"net": {f"p{number}": rng.standard_normal(3_000_000) for number in range(3)}}
    ckptfmt.save(state, tmp_path / "a.ckptfmt", step=3)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as file:
        created = file.metadata.created
    report = ckptfmt.save(state, store.path("a.ckptfmt"), step=3, created=created)
    assert content_of(*locate(report.path)) == (tmp_path / "a.ckptfmt").read_bytes()


def test_options_take_the_place_of_the_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    location = f"{s3.new_bucket()}/runs"
    for name in s3.environment:
        monkeypatch.delenv(name)
    options = {"endpoint": s3.endpoint, "access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    use_store_options(location, options)
    publish(store_for(location), "a.ckptfmt", b"content")
    assert content_of(*locate(f"{location}/a.ckptfmt")) == b"content"
    use_store_options(location, {"no_such_option": 1})
    with pytest.raises(StorageError) as caught:
        store_for(location)
    assert "no_such_option" in str(caught.value)
    with pytest.raises(UsageError):
        use_store_options("runs", options)


def test_many_checkpoints_are_looked_into_at_the_same_time(store: Store, faulty: Proxy) -> None:
    for step in range(20):
        ckptfmt.save({"net": {"w": np.ones(9)}}, store.path(f"{step}.ckptfmt"), step=step)
    together = threading.Barrier(5)  # waits until so many requests are under way
    faulty.reset()

    def meet(request: Request) -> int | None:
        if request.method == "GET" and "/runs/" in request.path and request.number <= 6:
            together.wait(60)
        return None

    faulty.before = meet
    assert [file.metadata.step for file in scan(store.location)] == sorted(range(20), key=str)
    assert not together.broken
