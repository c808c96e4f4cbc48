"""A second process that saves a run is noticed, and one of the two gives way (spec 15.8, annex B)."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from queue import Queue
from types import ModuleType
from typing import Any

import pytest
import torch

import ckptfmt
from ckptfmt import StorageError
from ckptfmt._core import pruning
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.scan import newest_first, scan
from ckptfmt._core.storage.base import Store
from ckptfmt._core.storage.leases import hold as holds
from ckptfmt._core.storage.leases import holders
from ckptfmt._core.storage.leases.lease import Holder, Lease
from ckptfmt._core.storage.local import file_leases, file_locks
from ckptfmt._core.storage.local.file_leases import lease_path, leases_in, publish_lease, read_lease
from ckptfmt._core.storage.local.lock import directory_lock
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.training import claiming, run_directory
from ckptfmt._core.training.claiming import RunClaim
from ckptfmt.errors import HeldError, LeaseError, SupersededError, UndecidedError
from ckptfmt.torch import Checkpointer
from tests.storage.disturbed_writer import run_disturbed
from tests.torch.directories import names
from tests.torch.job import run_job
from tests.torch.writers import Writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")

ELSEWHERE = Holder("node7", 42, "another-boot", "", "2026-01-01T00:00:00Z", "slurm 9")


def generations(directory: Path) -> dict[str, int | None]:
    return {file.name: file.metadata.generation for file in scan(directory)}


@contextmanager
def stolen(directory: Path, holder: Holder = ELSEWHERE) -> Iterator[Lease]:
    """Let another process take over the run that is being saved in a directory."""
    (lease,) = leases_in(directory)
    theirs = Lease(lease.run_id, lease.generation + 1, "ff" * 16, holder)
    with directory_lock(directory):
        hold = publish_lease(directory, theirs)
    yield theirs
    hold.close()


def save_and_wait(ckpt: Checkpointer) -> None:
    ckpt.save(loss=2)
    ckpt.wait()


# Two processes.


def test_a_second_start_by_mistake_is_refused_and_the_first_goes_on(tmp_path: Path, context: ForkServerContext) -> None:
    runs = tmp_path / "runs"
    with Writer(context, runs, tmp_path / "1") as first:
        assert first.resumed() is not None
        first.step()
        with Writer(context, runs, tmp_path / "2") as second:
            assert second.resumed() is None
            assert second.end() == 78
            assert all(word in second.said for word in (f"process {first.process.pid} ", os.uname().nodename))
            assert "resume(takeover=True)" in second.said
        assert first.step() == str(runs / "ckpt-00000002-e0000.ckptfmt")
        assert first.end() == 0
    assert set(generations(runs).values()) == {1}


def test_a_second_start_is_refused_before_anything_is_saved(tmp_path: Path, context: ForkServerContext) -> None:
    """Neither has a run id to go by then."""
    with Writer(context, tmp_path / "runs", tmp_path / "1") as first:
        assert first.resumed() is not None
        with Writer(context, tmp_path / "runs", tmp_path / "2") as second:
            assert second.resumed() is None
            assert second.end() == 78
        assert first.end() == 0


def test_runs_with_an_id_each_do_not_see_each_other(tmp_path: Path, context: ForkServerContext) -> None:
    runs = tmp_path / "runs"
    with (
        Writer(context, runs, tmp_path / "1", checkpointer={"run_id": "a"}) as first,
        Writer(context, runs, tmp_path / "2", checkpointer={"run_id": "b"}) as second,
    ):
        assert (first.resumed(), second.resumed()) == (("a", 0), ("b", 0))
        assert first.step() != second.step()
        assert (first.end(), second.end()) == (0, 0)


SAME_JOB = {"SLURM_JOB_ID": "8123"}


@pytest.mark.parametrize(
    ("environment", "options", "why"),
    [
        ({}, {"resume": {"takeover": True}}, "takeover=True"),
        (SAME_JOB, {}, "job"),
    ],
    ids=["on demand", "same job"],
)
def test_a_run_that_is_taken_over_has_one_writer(
    tmp_path: Path, context: ForkServerContext, environment: dict[str, str], options: dict[str, Any], why: str
) -> None:
    runs = tmp_path / "runs"
    tidy = {"checkpointer": {"keep_last": 2}}
    with Writer(context, runs, tmp_path / "1", environment, **tidy) as first:
        first.resumed()
        for _ in range(3):
            first.step()
        with Writer(context, runs, tmp_path / "2", environment, **tidy, **options) as second:
            resumed = second.resumed()
            assert resumed is not None
            assert resumed[1] == 3
            assert f"process {first.process.pid} " in second.said
            assert why in second.said
            before = names(runs)
            assert first.step() is None
            assert first.end() == 73
            assert f"process {second.process.pid} " in first.said
            assert names(runs) == before, "nothing published, nothing removed"
            assert second.step() == str(runs / "ckpt-00000004-e0000.ckptfmt")
            assert second.end() == 0
    assert generations(runs) == {"ckpt-00000003-e0000.ckptfmt": 1, "ckpt-00000004-e0000.ckptfmt": 2}


def test_after_a_kill_the_run_goes_on_at_once(tmp_path: Path, context: ForkServerContext) -> None:
    runs = tmp_path / "runs"
    for generation in (1, 2, 3):
        with Writer(context, runs, tmp_path / str(generation)) as writer:
            assert writer.resumed() is not None
            path = writer.step()
            assert path is not None
            assert generations(runs)[Path(path).name] == generation
            assert "taken over" not in writer.said
            writer.process.kill()


def be_killed_with_a_child(train_url: Path, told: Connection) -> None:
    """Claim a run, then end without the child that was started meanwhile."""
    ckpt = Checkpointer(train_url, {}, run_id="r")
    ckpt.resume(quiet=True)
    child = os.fork()
    if not child:
        told.send(os.getpid())
        told.recv()
        os._exit(0)
    os.waitpid(child, 0)


def test_children_of_a_killed_process_do_not_hold_its_run(tmp_path: Path, context: ForkServerContext) -> None:
    """The workers of a DataLoader live on for some seconds."""
    here, there = context.Pipe()
    process = context.Process(target=be_killed_with_a_child, args=(tmp_path, there))
    process.start()
    child = here.recv()
    process.kill()
    process.join()
    os.kill(child, 0)  # it lives
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    here.send("end")
    assert ckpt.run_id == "r"


def test_what_had_to_give_way_is_not_resumed_from_however_far_it_was(tmp_path: Path) -> None:
    """As when an orphan is some steps ahead: what it saved in time is older than what its successor saves."""
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for _ in ckpt.batches(range(8)):
            ckpt.step()
            if ckpt.global_step in (2, 7):
                ckpt.save()
    behind = Checkpointer(tmp_path, {}, run_id="r")
    assert behind.resume(tmp_path / "ckpt-00000002-e0000.ckptfmt", quiet=True).step == 2
    behind.save()
    behind.close()
    found = find_latest(tmp_path).file
    assert found is not None
    assert found.name == "ckpt-00000002-e0000-2.ckptfmt"
    again = Checkpointer(tmp_path, {}, run_id="r", keep_last=1)
    assert again.resume(quiet=True).path == found.path
    again.save(loss=1.0)
    again.close()
    assert [file.name for file in newest_first(scan(tmp_path), "r")] == ["ckpt-00000002-e0000-3.ckptfmt"]


# The last moment.


def test_a_run_that_is_taken_over_while_a_checkpoint_is_written_gets_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = Checkpointer(tmp_path, {"net": torch.nn.Linear(1, 1)})
    ckpt.resume(quiet=True)
    held = RunClaim.held
    looks = []

    def late(claim: RunClaim) -> Any:
        looks.append(claim)
        if len(looks) == 2:  # the first look is before the work
            with stolen(tmp_path):
                pass
        return held(claim)

    monkeypatch.setattr(RunClaim, "held", late)
    with pytest.raises(SupersededError, match=r"process 42 .*node7"):
        save_and_wait(ckpt)
    assert names(tmp_path) == []
    ckpt.close()


def test_a_run_that_is_taken_over_before_it_is_tidied_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = Checkpointer(tmp_path, {}, keep_last=1)
    ckpt.resume(quiet=True)
    ckpt.save(loss=1)
    ckpt.wait()
    make_durable = pruning._make_durable

    def and_steal(store: Store, file: CheckpointReference) -> None:
        make_durable(store, file)
        with stolen(tmp_path):
            pass

    monkeypatch.setattr(pruning, "_make_durable", and_steal)
    with pytest.raises(SupersededError):
        save_and_wait(ckpt)
    assert names(tmp_path) == ["ckpt-00000000-e0000-2.ckptfmt", "ckpt-00000000-e0000.ckptfmt"]
    ckpt.close()


def test_whoever_gives_the_run_back_leaves_it_to_the_next(tmp_path: Path, context: ForkServerContext) -> None:
    ckpt = Checkpointer(tmp_path / "runs", {}, run_id="r")
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    ckpt.save(loss=1)  # one may go on, as long as nobody else did
    ckpt.close()
    with Writer(context, tmp_path / "runs", tmp_path / "said", resume={"allow_mismatch": ["net"]}) as writer:
        assert writer.resumed() == ("r", 0)
        assert "taken over" not in writer.said
        with pytest.raises(SupersededError):
            ckpt.save(loss=2)
        assert writer.step() is not None


def test_a_resume_that_fails_gives_the_run_back(tmp_path: Path, context: ForkServerContext) -> None:
    ckpt = Checkpointer(tmp_path / "runs", {"net": torch.nn.Linear(2, 2)}, run_id="r")
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    other = Checkpointer(tmp_path / "runs", {"net": torch.nn.Linear(3, 3)}, run_id="r")
    with pytest.raises(ckptfmt.MismatchError):
        other.resume(quiet=True)
    with Writer(context, tmp_path / "runs", tmp_path / "said", resume={"allow_mismatch": ["net"]}) as writer:
        assert writer.resumed() == ("r", 0)


# Claims.


def claim_and_tell(directory: Path, environment: dict[str, str], told: Connection) -> None:
    os.environ.update(environment)
    claim = RunClaim(str(directory))
    try:
        claim.take("r")
    except HeldError:
        told.send(None)
    else:
        told.send(claim.generation)
    told.recv()  # until all of them have tried
    try:
        with claim.held():
            told.send(True)
    except (SupersededError, StorageError):
        told.send(False)


@pytest.mark.parametrize("environment", [{}, SAME_JOB], ids=["no job", "one job"])
def test_of_many_processes_that_claim_a_run_at_once_one_has_it(
    tmp_path: Path, context: ForkServerContext, environment: dict[str, str]
) -> None:
    pipes = [context.Pipe() for _ in range(12)]
    processes = [context.Process(target=claim_and_tell, args=(tmp_path, environment, there)) for _, there in pipes]
    for process in processes:
        process.start()
    claimed = [here.recv() for here, _ in pipes]
    for here, _ in pipes:
        here.send("go on")
    having = [here.recv() for here, _ in pipes]
    for process in processes:
        process.join()
    there = [generation for generation in claimed if generation is not None]
    assert len(set(there)) == len(there), "no generation is claimed twice"
    if environment:
        assert sorted(there) == list(range(1, 13))
    else:
        assert there == [1]
    assert having == [generation == max(there) for generation in claimed]


def claims_under_kill(directory: Path, told: Connection) -> None:
    outcomes: list[tuple[Any, ...]] = []

    def claim() -> None:
        RunClaim(str(directory)).take("r")

    while True:
        before = read_lease(directory, "r")
        operation, ended = run_disturbed("kill", len(outcomes) + 1, claim)
        if not operation:
            break
        after = read_lease(directory, "r")
        left = [path.name for path in directory.glob(".*.tmp")]
        mine = RunClaim(str(directory))
        mine.take("r")
        mine.release()
        still = [path.name for path in directory.glob(".*.tmp")]
        outcomes.append((operation, ended, before, after, mine.generation, left, still))
    told.send(outcomes)


def test_a_kill_at_any_file_operation_of_a_claim_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, context: ForkServerContext
) -> None:
    here, there = context.Pipe()
    process = context.Process(target=claims_under_kill, args=(tmp_path, there))
    process.start()
    there.close()
    outcomes = here.recv()
    process.join()
    assert {operation for operation, *_ in outcomes} >= {"open", "flock", "write", "fsync", "replace"}
    assert {ended for _, ended, *_ in outcomes} == {"killed"}
    known = 0
    for _, _, before, after, generation, _, still in outcomes:
        assert (before.generation if before is not None else 0) == known
        found = after.generation if after is not None else 0
        assert found in (known, known + 1)
        assert generation == found + 1, "whoever was killed is dead, and nobody waits for him"
        assert still == []
        known = generation
    assert any(left for *_, left, _ in outcomes), "some kills left a temporary file behind"


def test_without_a_lease_the_generation_follows_from_the_checkpoints(tmp_path: Path) -> None:
    """As in a copy that was made without hidden files."""
    for generation in (1, 2):
        ckpt = Checkpointer(tmp_path, {}, run_id="r")
        ckpt.resume(quiet=True)
        ckpt.save()
        ckpt.close()
        assert max(found or 0 for found in generations(tmp_path).values()) == generation
    lease_path(tmp_path, "r").unlink()
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    assert max(found or 0 for found in generations(tmp_path).values()) == 3


def test_a_lease_that_cannot_be_understood_is_not_passed_over(tmp_path: Path) -> None:
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.wait()
    lease_path(tmp_path, "r").write_text('{"lease": 2}')
    with pytest.raises(LeaseError):
        Checkpointer(tmp_path, {}, run_id="r").resume(quiet=True)
    ckpt.save(loss=1)
    ckpt.wait()
    assert isinstance(ckpt.last_error, LeaseError)
    assert len(names(tmp_path)) == 1
    ckpt.close()


@pytest.mark.parametrize("place", ["lease", "lock"])
def test_a_directory_in_the_place_of_a_hidden_file_fails_saves_until_it_is_gone(tmp_path: Path, place: str) -> None:
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    path = lease_path(tmp_path, "r") if place == "lease" else tmp_path / ".ckptfmt.lock"
    path.unlink()
    path.mkdir()
    (path / "of somebody").touch()
    ckpt.save()
    ckpt.wait()
    assert isinstance(ckpt.last_error, StorageError | LeaseError)
    assert str(path) in str(ckpt.last_error)
    assert (path / "of somebody").exists()
    with pytest.raises((StorageError, LeaseError)) as caught:
        Checkpointer(tmp_path, {}, run_id="r").resume(quiet=True)
    assert str(path) in str(caught.value)
    shutil.rmtree(path)
    ckpt.save()
    ckpt.wait()
    assert ckpt.last_error is None
    assert len(names(tmp_path)) == 1
    ckpt.close()


# Other machines.


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with one checkpoint that a process of another machine has saved; nobody waits long for it."""
    monkeypatch.setattr(holders, "WATCH_SECONDS", 0.5)
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    with stolen(tmp_path):
        pass
    return lease_path(tmp_path, "r")


def test_a_holder_elsewhere_that_is_not_heard_of_is_taken_over_and_told(
    tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if "process 42 on node7 (job slurm 9)" in line]
    assert len(lines) == 2, "it is told before and after"
    assert "2026-01-01T00:00:00Z" in lines[0]
    ckpt.save()
    ckpt.close()
    assert max(found or 0 for found in generations(tmp_path).values()) == 3


def test_a_holder_elsewhere_that_shows_to_be_alive_keeps_the_run(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "WATCH_SECONDS", 60)
    over = threading.Event()

    def touch() -> None:
        while not over.wait(0.05):
            os.utime(elsewhere)

    touching = threading.Thread(target=touch, daemon=True)
    touching.start()
    with pytest.raises(HeldError, match="node7") as caught:
        Checkpointer(tmp_path, {}, run_id="r").resume(quiet=True)
    over.set()
    touching.join()
    assert (caught.value.host, caught.value.pid, caught.value.code) == ("node7", 42, 78)


def test_a_holder_elsewhere_of_the_same_job_is_not_waited_for(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setattr(holders, "WATCH_SECONDS", 10_000)
    Checkpointer(tmp_path, {}, run_id="r").resume(quiet=True)
    told = capsys.readouterr().err
    assert told.count("process 42 on node7") == 1, "nobody waits"


def test_who_loses_the_run_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Queue[str] = Queue()
    monkeypatch.setattr("ckptfmt._core.training.claiming.notify", lambda message, level: told.put(message))
    monkeypatch.setattr(holds, "BEAT_SECONDS", 0.01)
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    with stolen(tmp_path):
        message = told.get(timeout=60)
    assert re.search(r"\brun r\b.*process 42 on node7 \(job slurm 9\).* 2026", message)
    ckpt.close()


# Where not everything works.


def test_where_nothing_can_be_written_a_run_is_resumed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as on a disk that is mounted read-only, or full. As soon as it can be, the run is claimed and saved."""
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()

    def refuse(*_: object, **__: object) -> None:
        raise storage_error(str(tmp_path), "cannot be written", OSError(errno.EROFS, "read-only"))

    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    with monkeypatch.context() as patch:
        patch.setattr("ckptfmt._core.storage.local.file_leases.publish_lease", refuse)
        assert ckpt.resume(quiet=True).resumed
        assert capsys.readouterr().err.count(str(tmp_path)) == 1
        ckpt.save(loss=1)
        ckpt.wait()
        assert isinstance(ckpt.last_error, StorageError)
        assert "FAILED" in capsys.readouterr().err
    assert len(names(tmp_path)) == 1
    ckpt.save(loss=2)
    ckpt.close()
    assert sorted(found or 0 for found in generations(tmp_path).values()) == [1, 2]


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (file_leases, "read_lease"),
        (file_leases, "publish_lease"),
        (file_leases, "directory_lock"),
        (run_directory, "_place_of"),
    ],
)
@pytest.mark.parametrize("times", [1, 3])
def test_an_error_that_may_be_over_in_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, times: int
) -> None:
    errors = iter([storage_error(str(tmp_path), "cannot be used", OSError(errno.EIO, "I/O error"))] * times)
    act = getattr(module, function)

    def fail_at_first(*arguments: Any, **options: Any) -> Any:
        if (error := next(errors, None)) is not None:
            raise error
        return act(*arguments, **options)

    monkeypatch.setattr(module, function, fail_at_first)
    monkeypatch.setattr(claiming, "_PAUSES_SECONDS", (0.0, 0.0))
    ckpt = Checkpointer(tmp_path, {}, run_id="r")
    if times == 3:
        with pytest.raises(UndecidedError, match=re.escape(str(tmp_path))):
            ckpt.resume(quiet=True)
        return
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.close()
    assert list(generations(tmp_path).values()) == [1]


def test_a_run_that_another_process_claimed_when_this_one_could_not_is_left_to_it(
    tmp_path: Path, context: ForkServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise storage_error(str(tmp_path), "cannot be written", OSError(errno.ENOSPC, "full"))

    runs = tmp_path / "runs"
    ckpt = Checkpointer(runs, {}, run_id="r")
    with monkeypatch.context() as patch:
        patch.setattr("ckptfmt._core.storage.local.file_leases.publish_lease", refuse)
        ckpt.resume(quiet=True)
    with Writer(context, runs, tmp_path / "said", checkpointer={"run_id": "r"}) as writer:
        assert writer.resumed() == ("r", 0)
        with pytest.raises(SupersededError, match=f"process {writer.process.pid} "):
            ckpt.save()
        assert writer.step() is not None
    ckpt.close()


def claim_without_locks(directory: Path, told: Connection) -> None:
    file_locks.HAVE_LOCKS = False
    claim_and_tell(directory, {}, told)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell of processes")
def test_without_locks_a_second_writer_is_noticed_as_well(tmp_path: Path, context: ForkServerContext) -> None:
    pipes = [context.Pipe() for _ in range(3)]
    processes = [context.Process(target=claim_without_locks, args=(tmp_path, there)) for _, there in pipes]
    claimed: list[int | None] = []
    for number, process in enumerate(processes):
        process.start()
        claimed.append(pipes[number][0].recv())
        if number == 1:
            processes[0].kill()
            processes[0].join()
    for here, _ in pipes[1:]:
        here.send("go on")
    assert [here.recv() for here, _ in pipes[1:]] == [False, True]
    for process in processes:
        process.join()
    assert claimed == [1, None, 2]


# A directory that is gone.


def test_a_directory_that_was_removed_is_made_again_with_its_lease(
    tmp_path: Path, context: ForkServerContext, capsys: pytest.CaptureFixture[str]
) -> None:

    runs = tmp_path / "a" / "runs"
    ckpt = Checkpointer(runs, {}, run_id="r")
    ckpt.resume(quiet=True)
    ckpt.save()
    ckpt.wait()
    shutil.rmtree(tmp_path / "a")
    ckpt.save(loss=1)
    ckpt.wait()
    assert str(runs) in capsys.readouterr().err
    assert names(runs) == ["ckpt-00000000-e0000.ckptfmt"]
    with Writer(context, runs, tmp_path / "said") as writer:
        assert writer.resumed() is None, "the run is held as before"
    ckpt.close()


@pytest.mark.parametrize("name", ["runs", "."], ids=["below the volume", "the volume itself"])
def test_where_its_volume_is_unmounted_nothing_is_written(tmp_path: Path, name: str) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*alone, "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody mount a volume")
    script = Path(__file__).with_name("on_unmounted_volume.py")
    command = [*alone, sys.executable, str(script), str(tmp_path), name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    outcome = json.loads(done.stdout)
    assert outcome["saved"]
    assert str(tmp_path) in outcome["error"]
    assert outcome["beneath"] == []


# Several ranks.


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which process has lost its parent")
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_orphans_of_a_killed_torchrun_give_way_to_the_restarted_job(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("orphans.py")), str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    outcome = json.loads(done.stdout)
    first, second = outcome["said"]
    assert outcome["second"] == 0, second
    assert outcome["orphans"] == [73, 73], first
    assert "process" in first
    assert "launcher" in second
    found = scan(tmp_path / "runs")
    assert {file.metadata.generation for file in found} == {1, 2}
    newest = newest_first(found, found[0].run_id)[0]
    assert newest.metadata.generation == 2
    assert newest.metadata.step == max(file.metadata.step or 0 for file in found if file.metadata.generation == 2)


def lose_the_run(rank: int, train_url: Path) -> None:
    ckpt = Checkpointer(train_url, {"net": torch.nn.Linear(1, 1)}, save_interval_steps=1)
    ckpt.resume(quiet=True)
    for _ in ckpt.epochs(1):
        for number in ckpt.batches(range(5)):
            if number == 2:
                ckpt.wait()
                if rank == 0:
                    with stolen(train_url):
                        pass
            ckpt.step()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_all_ranks_end_when_the_run_is_taken_over(tmp_path: Path, context: ForkServerContext) -> None:
    ended = run_job(context, tmp_path / "job", lose_the_run, tmp_path / "runs")
    assert [it.error for it in ended] == ["SupersededError"] * 2
    assert [it.code for it in ended] == [73, 73]
    assert names(tmp_path / "runs") == ["ckpt-00000001-e0000.ckptfmt", "ckpt-00000002-e0000.ckptfmt"]


def be_refused(rank: int, train_url: Path) -> None:
    Checkpointer(train_url, {}, run_id="r").resume(quiet=True)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_all_ranks_are_refused_a_run_that_is_held(tmp_path: Path, context: ForkServerContext) -> None:
    ckpt = Checkpointer(tmp_path / "runs", {}, run_id="r")
    ckpt.resume(quiet=True)
    ended = run_job(context, tmp_path / "job", be_refused, tmp_path / "runs")
    assert [(it.error, it.code) for it in ended] == [("HeldError", 78)] * 2
    ckpt.close()
