"""Who saves a run, as a file says it (spec, annex B)."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckptfmt._core.storage.leases import hold as holds
from ckptfmt._core.storage.leases.hold import Hold
from ckptfmt._core.storage.leases.holders import is_orphan, this_process
from ckptfmt._core.storage.leases.lease import Holder, Lease
from ckptfmt._core.storage.local import file_locks
from ckptfmt._core.storage.local.file_leases import lease_path, leases_in, publish_lease, read_lease, seems_alive
from ckptfmt._core.storage.local.lock import directory_lock
from ckptfmt.errors import LeaseError, StorageError

ELSEWHERE = Holder("node7", 42, "another-boot", "", "2026-01-01T00:00:00Z", "slurm 9")


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Hold]:
    with directory_lock(tmp_path):
        hold = publish_lease(tmp_path, Lease("r", 3, "ab" * 16, this_process({})))
    yield hold
    hold.close()


@pytest.mark.parametrize("run_id", ["r", "é" * 128, "../../etc/passwd", "\x1b[2J\n", "run/1", "\0", "\ud800"], ids=repr)
@pytest.mark.parametrize("holder", [None, ELSEWHERE, replace(ELSEWHERE, job=None, launcher=7)])
def test_what_is_published_is_read(tmp_path: Path, run_id: str, holder: Holder | None) -> None:
    lease = Lease(run_id, 2**63, "claim", holder)
    publish_lease(tmp_path, lease).close()
    assert read_lease(tmp_path, run_id) == lease
    assert list(leases_in(tmp_path)) == [lease]
    assert read_lease(tmp_path, "another") is None
    (path,) = tmp_path.iterdir()
    assert path.name.startswith(".ckptfmt.")
    assert path.name.endswith(".lease")


GOOD: dict[str, Any] = {"lease": 1, "run_id": "r", "generation": 1, "claim": "c", "holder": None}


WRONG: list[dict[str, Any]] = [
    {"lease": 2},
    {"lease": True},
    {"run_id": 5},
    {"run_id": "another"},
    {"generation": -1},
    {"generation": 1.0},
    {"generation": True},
    {"claim": None},
    {"holder": "me"},
    {"holder": {}},
    {"holder": {"host": 1, "pid": 1, "machine": "", "process": "", "since": ""}},
]


def test_keys_that_are_not_known_are_of_no_account(tmp_path: Path) -> None:
    lease_path(tmp_path, "r").write_text(json.dumps({**GOOD, "store": {"etag": 1}}))
    assert read_lease(tmp_path, "r") == Lease("r", 1, "c", None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"generation": ' + b"9" * 5000 + b"}",
        *(json.dumps({k: v for k, v in GOOD.items() if k != key}).encode() for key in GOOD),
        *(json.dumps({**GOOD, **change}).encode() for change in WRONG),
    ],
)
def test_what_is_no_lease_is_told(tmp_path: Path, content: bytes) -> None:
    path = lease_path(tmp_path, "r")
    path.write_bytes(content)
    with pytest.raises(LeaseError) as caught:
        read_lease(tmp_path, "r")
    assert str(path) in str(caught.value)
    assert list(leases_in(tmp_path)) == []


def test_a_link_or_pipe_is_no_lease(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(json.dumps(GOOD))
    lease_path(tmp_path, "r").symlink_to("elsewhere")
    with pytest.raises(StorageError):
        read_lease(tmp_path, "r")
    os.mkfifo(lease_path(tmp_path, "s"))
    with pytest.raises(StorageError):
        read_lease(tmp_path, "s")


# Whether its holder lives.


def lease_of(tmp_path: Path) -> Lease:
    lease = read_lease(tmp_path, "r")
    assert lease is not None
    return lease


def test_a_holder_lives_until_it_closes_its_lease(tmp_path: Path, held: Hold) -> None:
    assert seems_alive(tmp_path, lease_of(tmp_path))
    held.close()
    assert not seems_alive(tmp_path, lease_of(tmp_path))


def test_a_lease_that_is_given_back_has_no_holder(tmp_path: Path, held: Hold) -> None:
    assert not seems_alive(tmp_path, replace(lease_of(tmp_path), holder=None))


def test_a_child_of_the_holder_does_not_keep_it_alive(tmp_path: Path, held: Hold) -> None:
    here, there = socket.socketpair()
    child = os.fork()
    if not child:
        there.send(b"begun")
        here.close()
        there.recv(1)  # until the parent closes its end
        os._exit(0)
    there.close()
    assert here.recv(5) == b"begun"
    held.close()
    alive = seems_alive(tmp_path, lease_of(tmp_path))
    here.close()
    os.waitpid(child, 0)
    assert not alive


def test_an_open_lease_that_was_replaced_says_nothing_of_the_new_one(tmp_path: Path, held: Hold) -> None:
    publish_lease(tmp_path, Lease("r", 4, "cd" * 16, this_process({}))).close()
    assert not seems_alive(tmp_path, lease_of(tmp_path))
    assert not held.touch(), "the holder notices"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The lease of a holder on another machine, whose lock is not seen here."""
    publish_lease(tmp_path, Lease("r", 3, "ab" * 16, ELSEWHERE)).close()
    return lease_path(tmp_path, "r")


def test_a_holder_elsewhere_lives_if_it_touches_its_lease(tmp_path: Path, elsewhere: Path) -> None:
    over = threading.Event()

    def touch() -> None:
        while not over.wait(0.05):
            os.utime(elsewhere)

    touching = threading.Thread(target=touch, daemon=True)
    touching.start()
    alive = seems_alive(tmp_path, lease_of(tmp_path), watch_seconds=60)
    over.set()
    touching.join()
    assert alive


@pytest.mark.parametrize("when", [0, 2**33], ids=["long ago", "by a clock that is ahead"])
def test_a_holder_elsewhere_is_not_seen_to_live_if_it_does_not(tmp_path: Path, elsewhere: Path, when: int) -> None:
    os.utime(elsewhere, (when, when))
    assert not seems_alive(tmp_path, lease_of(tmp_path), watch_seconds=0.2)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell of processes")
def test_without_locks_the_system_is_asked_for_the_process(
    tmp_path: Path, held: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_locks, "HAVE_LOCKS", False)
    lease = lease_of(tmp_path)
    assert lease.holder is not None
    assert seems_alive(tmp_path, lease, watch_seconds=0)
    child = os.fork()
    if not child:
        os._exit(0)
    dead = replace(lease.holder, pid=child)  # not waited for yet: the number is still there
    assert not seems_alive(tmp_path, replace(lease, holder=dead), watch_seconds=0)
    os.waitpid(child, 0)
    another = replace(lease.holder, process=f"{lease.holder.process}0")
    assert not seems_alive(tmp_path, replace(lease, holder=another), watch_seconds=0)


def test_a_holder_touches_its_lease_now_and_then(tmp_path: Path, held: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "BEAT_SECONDS", 0.01)
    path = lease_path(tmp_path, "r")
    os.utime(path, (0, 0))
    lost = threading.Event()
    held.keep_alive(lost.set)
    latest = time.monotonic() + 60
    while path.stat().st_mtime == 0:
        assert time.monotonic() < latest, "it does not"
    assert not lost.is_set()
    publish_lease(tmp_path, Lease("r", 4, "cd" * 16, None)).close()
    assert lost.wait(60), "and sees when it is replaced"


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": ""}, None),
        ({"TORCHELASTIC_RUN_ID": "none"}, None),
        ({"TORCHELASTIC_RUN_ID": "abc"}, "torchrun abc"),
        ({"SLURM_JOB_ID": "81", "TORCHELASTIC_RUN_ID": "abc"}, "slurm 81"),
    ],
    ids=str,
)
def test_jobs_have_the_name_that_their_scheduler_or_launcher_gave(environment: dict[str, str], job: str | None) -> None:
    assert this_process(environment).job == job


def test_a_process_is_an_orphan_once_its_launcher_is_gone() -> None:
    launched = this_process({"TORCHELASTIC_RUN_ID": "none"})
    assert launched.launcher == os.getppid()
    assert not is_orphan(launched)
    assert not is_orphan(this_process({}))
    assert is_orphan(replace(launched, launcher=os.getpid())) == (sys.platform == "linux")
    assert not is_orphan(replace(launched, launcher=os.getpid(), machine="another")), "nobody knows"
