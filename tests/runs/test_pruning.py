"""Removing old checkpoints never costs the last good one, whatever happens in between (spec 15.6)."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt import StorageError
from ckptfmt._core import pruning
from ckptfmt._core.ops.directory.pins import pin
from ckptfmt._core.pruning import apply_retention, prune_run
from ckptfmt._core.runs.pins import PIN
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import RetentionPlan, RetentionPolicy, plan_retention
from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.base import Store
from ckptfmt._core.storage.local.lock import directory_lock, prune_lock
from ckptfmt.errors import LockedError

HERE = Path(__file__).parents[1]
START = datetime(2026, 3, 1, tzinfo=UTC)
LAST_TWO = RetentionPolicy(keep_last=2)

posix = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL, and there are no locks")


def save(directory: Path, step: int, run_id: str = "r") -> Path:
    path = directory / f"{step * 7919 % 1000:03d}.ckptfmt"  # the name tells nothing
    weights = np.random.default_rng(step).standard_normal(64)
    facts = {"step": step, "created": START + timedelta(hours=step)}
    ckptfmt.save({"net": {"w": weights}}, path, run_id=run_id, **facts)  # type: ignore[arg-type]  # of two kinds
    return path


def damage(path: Path) -> None:
    """Change a byte of the data; the index does not tell."""
    data = bytearray(path.read_bytes())
    data[8192] ^= 1
    path.write_bytes(data)


def sound_steps(directory: Path) -> list[int]:
    """Return the steps of the checkpoints that verify, the newest first."""
    steps = []
    for path in directory.glob("*.ckptfmt"):
        with ckptfmt.open(path) as checkpoint:
            if checkpoint.verify() == ():
                steps.append(checkpoint.metadata.step or 0)
    return sorted(steps, reverse=True)


def planned(directory: Path, policy: RetentionPolicy = LAST_TWO) -> RetentionPlan:
    return plan_retention(scan(directory), policy)


def test_what_was_agreed_to_is_removed_the_oldest_first(tmp_path: Path) -> None:
    paths = {step: str(save(tmp_path, step)) for step in range(1, 7)}
    report = apply_retention(tmp_path, LAST_TWO, planned(tmp_path).removed)
    assert [file.path for file in report.removed] == [paths[step] for step in (1, 2, 3, 4)]
    assert sound_steps(tmp_path) == [6, 5]
    assert report.freed_bytes == sum(file.file_bytes or 0 for file in report.removed) > 0
    assert all(file.verified for file in report.known)


@posix
@pytest.mark.parametrize("damaged", [None, 6])
def test_a_kill_between_any_two_removals_leaves_the_newest_sound_ones(tmp_path: Path, damaged: int | None) -> None:
    for step in range(1, 7):
        path = save(tmp_path, step)
        if step == damaged:
            damage(path)
    before = sound_steps(tmp_path)
    command = [sys.executable, str(HERE / "pruning_until_killed.py"), str(tmp_path)]
    kills = 0
    for _ in range(10):
        done = subprocess.run([*command, "2"], check=False, timeout=60, cwd=HERE.parent)
        after = sound_steps(tmp_path)
        assert after[:2] == before[:2]
        assert after == before[: len(after)], "the oldest go first"
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 2
    assert sound_steps(tmp_path) == before[:2]


def test_what_proves_to_be_damaged_does_not_count_as_kept(tmp_path: Path) -> None:
    paths = {step: save(tmp_path, step) for step in range(1, 6)}
    agreed = planned(tmp_path).removed
    damage(paths[5])
    damage(paths[4])
    report = apply_retention(tmp_path, LAST_TWO, agreed)
    assert sound_steps(tmp_path) == [3, 2]
    assert paths[5].exists(), "nobody knows what a damaged file holds"
    assert paths[4].exists()
    assert [file.path for file in report.removed] == [str(paths[1])]


def test_with_nothing_sound_nothing_is_removed(tmp_path: Path) -> None:
    paths = [save(tmp_path, step) for step in range(1, 4)]
    agreed = planned(tmp_path, RetentionPolicy(keep_last=1)).removed
    for path in paths:
        damage(path)
    apply_retention(tmp_path, RetentionPolicy(keep_last=1), agreed)
    assert all(path.exists() for path in paths)


def test_no_more_is_removed_than_was_agreed_to(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    agreed = planned(tmp_path, RetentionPolicy(keep_last=1)).removed
    for step in (3, 4):  # the training goes on meanwhile
        save(tmp_path, step)
    apply_retention(tmp_path, RetentionPolicy(keep_last=1), agreed)
    assert sound_steps(tmp_path) == [4, 3, 2]


def test_a_file_that_changed_since_it_was_agreed_to_stays(tmp_path: Path) -> None:
    paths = {step: save(tmp_path, step) for step in (1, 2, 3)}
    agreed = planned(tmp_path, RetentionPolicy(keep_last=1)).removed
    ckptfmt.save({"net": {"w": np.zeros(9)}}, paths[1], run_id="r", step=1)
    report = apply_retention(tmp_path, RetentionPolicy(keep_last=1), agreed)
    assert [file.path for file in report.removed] == [str(paths[2])]
    assert sound_steps(tmp_path) == [3, 1]


def test_a_pin_that_comes_at_the_last_moment_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {step: save(tmp_path, step) for step in range(1, 5)}
    durable = pruning._make_durable

    def pin_meanwhile(store: Store, file: CheckpointReference) -> None:
        durable(store, file)
        Path(str(paths[1]) + PIN).touch()

    monkeypatch.setattr(pruning, "_make_durable", pin_meanwhile)
    report = apply_retention(tmp_path, LAST_TWO, planned(tmp_path).removed)
    assert [(failure.path, failure.reason) for failure in report.failed] == [
        (str(paths[1]), "it was pinned meanwhile"),
    ]
    assert sound_steps(tmp_path) == [4, 3, 1]


@posix
def test_a_pin_that_comes_between_the_last_look_and_the_removal_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file goes, so that nobody may be told that it is pinned."""
    paths = {step: save(tmp_path, step) for step in (1, 2, 3)}
    outcomes: list[object] = []

    def pin_it() -> None:
        try:
            outcomes.append(pin(paths[1]))
        except StorageError as error:
            outcomes.append(error.errno)

    remove = Path.unlink
    pinning = threading.Thread(target=pin_it)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == paths[1]:
            pinning.start()
            pinning.join(1)  # it should wait for the removal; a second is more than enough to fail to
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    report = apply_retention(tmp_path, LAST_TWO, planned(tmp_path).removed)
    pinning.join()
    assert [file.path for file in report.removed] == [str(paths[1])]
    assert outcomes == [errno.ENOENT]
    assert not list(tmp_path.glob("*.pin"))


@posix
def test_while_a_prune_reads_what_stays_pins_need_not_wait(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    with prune_lock(tmp_path):
        assert pin(path).pinned


@posix
def test_each_removal_waits_for_the_lock_and_looks_again(tmp_path: Path) -> None:
    paths = {step: save(tmp_path, step) for step in (1, 2, 3, 4)}
    agreed = planned(tmp_path).removed
    pruner = threading.Thread(target=apply_retention, args=(tmp_path, LAST_TWO, agreed))
    with directory_lock(tmp_path):
        pruner.start()
        pruner.join(1)
        Path(f"{paths[1]}{PIN}").touch()
    pruner.join()
    assert sound_steps(tmp_path) == [4, 3, 1]


def test_another_run_is_not_touched(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, "mine")
        save(tmp_path, step + 100, "yours")
    policy = RetentionPolicy(keep_last=1, run_id="mine")
    apply_retention(tmp_path, policy, planned(tmp_path, policy).removed)
    assert sound_steps(tmp_path) == [103, 102, 101, 3]


@posix
def test_two_prunes_do_not_work_at_once(tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, step)
    agreed = planned(tmp_path).removed
    with prune_lock(tmp_path):
        with pytest.raises(LockedError):
            apply_retention(tmp_path, LAST_TWO, agreed)
        hindered = prune_run(tmp_path, "r", LAST_TWO, just_written=save(tmp_path, 5))
        assert hindered.hindered is not None
        assert not hindered.removed
    assert len(sound_steps(tmp_path)) == 5


@posix
def test_one_can_wait_for_the_other(tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, step)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with prune_lock(tmp_path):
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    threading.Timer(0.3, release.set).start()
    apply_retention(tmp_path, LAST_TWO, planned(tmp_path).removed, wait_seconds=10)
    holder.join()
    assert sound_steps(tmp_path) == [4, 3]


@posix
def test_prunes_of_several_processes_and_a_running_training_leave_the_newest_sound_one(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "pruning_until_killed.py"), str(tmp_path)]
    for step in range(1, 6):
        save(tmp_path, step)
    for step in range(6, 12):
        pruners = [subprocess.Popen([*command, "2"], cwd=HERE.parent, stderr=subprocess.DEVNULL) for _ in range(2)]
        path = save(tmp_path, step)
        if step % 3 == 0:
            damage(path)
        for pruner in pruners:
            assert pruner.wait(timeout=60) in (0, -signal.SIGKILL)
        newest = step if step % 3 else step - 1
        assert sound_steps(tmp_path)[0] == newest


def test_after_a_save_one_that_stays_was_read_back(tmp_path: Path) -> None:
    for step in range(1, 4):
        save(tmp_path, step)
    report = prune_run(tmp_path, "r", LAST_TWO, just_written=save(tmp_path, 4))
    assert sound_steps(tmp_path) == [4, 3]
    assert any(file.verified for file in report.known)


def test_after_a_save_that_cannot_be_read_nothing_is_removed(tmp_path: Path) -> None:
    for step in range(1, 4):
        save(tmp_path, step)
    path = save(tmp_path, 4)
    path.write_bytes(path.read_bytes()[:-1])
    report = prune_run(tmp_path, "r", LAST_TWO, just_written=path)
    assert report.hindered is not None
    assert str(path) in report.hindered
    assert sound_steps_of_whole(tmp_path) == [3, 2, 1]


def sound_steps_of_whole(directory: Path) -> list[int]:
    return sorted((file.metadata.step or 0 for file in scan(directory) if file.usable), reverse=True)


def test_what_is_known_is_not_read_again(tmp_path: Path) -> None:
    for step in range(1, 4):
        save(tmp_path, step)
    first = prune_run(tmp_path, "r", LAST_TWO, just_written=save(tmp_path, 4))
    marked = tuple(replace(file, identity="ff" * 32) for file in first.known)
    second = prune_run(tmp_path, "r", LAST_TWO, just_written=save(tmp_path, 5), known=marked)
    assert "ff" * 32 in {file.identity for file in second.known}
