"""Temporary files of dead writers are removed, those of living ones and all other files are not."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptfmt._core.storage.local import file_locks
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers
from ckptfmt.errors import StorageError

BeginWriter = Callable[[Path, str], "subprocess.Popen[str]"]
DAY = 24 * 60 * 60


def publish(path: Path, content: bytes = b"new") -> None:
    with AtomicFile(path) as file:
        file.write(content)
        file.commit()


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def hidden(directory: Path) -> set[Path]:
    return set(directory.glob(".*.tmp"))


@pytest.fixture
def leave_behind(begin_writer: BeginWriter) -> Callable[[Path], Path]:
    """Kill a writer in the middle of its work; return the path of what it leaves."""

    def leave(path: Path) -> Path:
        before = hidden(path.parent)
        writer = begin_writer(path, "half")
        writer.kill()
        writer.wait()
        (leftover,) = hidden(path.parent) - before
        return leftover

    return leave


LeaveBehind = Callable[[Path], Path]


def test_leftovers_of_dead_writers_are_removed_and_named(tmp_path: Path, leave_behind: LeaveBehind) -> None:
    leftovers = [leave_behind(tmp_path / name) for name in ("a.ckptfmt", "b.ckptfmt")]
    (tmp_path / "b.ckptfmt").write_bytes(b"sound")
    assert clean_leftovers(tmp_path) == tuple(str(path) for path in leftovers)
    assert names(tmp_path) == ["b.ckptfmt"]
    assert clean_leftovers(tmp_path) == ()


def test_only_the_leftovers_of_one_name_are_removed_if_one_is_given(tmp_path: Path, leave_behind: LeaveBehind) -> None:
    mine, other = leave_behind(tmp_path / "a.ckptfmt"), leave_behind(tmp_path / "aa.ckptfmt")
    assert clean_leftovers(str(tmp_path), "a.ckptfmt") == (str(mine),)
    assert hidden(tmp_path) == {other}


def test_the_next_writer_removes_the_leftovers_of_its_own_target_only(
    tmp_path: Path, leave_behind: LeaveBehind
) -> None:
    path = tmp_path / "a.ckptfmt"
    leave_behind(path)
    leave_behind(path)
    other = leave_behind(tmp_path / "b.ckptfmt")
    with AtomicFile(path):
        assert len(hidden(tmp_path)) == 2, "they make room before the new file is written"
    assert hidden(tmp_path) == {other}


@pytest.mark.parametrize("name", ["n" * 255, "\N{SNOWMAN}" * 80, "line\nend", "*[a]?"])
def test_leftovers_of_unusual_names_are_removed(tmp_path: Path, leave_behind: LeaveBehind, name: str) -> None:
    leave_behind(tmp_path / name)
    publish(tmp_path / name)
    assert names(tmp_path) == [name]


def test_leftovers_beside_the_file_that_a_link_leads_to_are_removed(tmp_path: Path, leave_behind: LeaveBehind) -> None:
    (tmp_path / "store").mkdir()
    link = tmp_path / "latest.ckptfmt"
    link.symlink_to("store/7.ckptfmt")
    leave_behind(tmp_path / "store" / "7.ckptfmt")
    publish(link)
    assert names(tmp_path / "store") == ["7.ckptfmt"]


def test_other_files_are_never_touched(tmp_path: Path, leave_behind: LeaveBehind) -> None:
    leftover = leave_behind(tmp_path / "a.ckptfmt")
    stem, _ = leftover.name.rsplit("-", 1)
    for name in (
        "a.ckptfmt",
        ".a.ckptfmt.tmp",
        ".a.ckptfmt.12345678.tmp",
        leftover.name[1:],
        leftover.name + "~",
        leftover.name + "\n",
        leftover.name.upper(),
        leftover.name.replace(".tmp", ""),
        f"{stem}-0123456789abcde.tmp",
        f"{stem}-0123456789abcdef0.tmp",
        f"{stem}-0123456789abcdeg.tmp",
    ):
        (tmp_path / name).touch()
    # These have such a name and yet are no files of ours.
    (tmp_path / f"{stem}-000000000000000b.tmp").symlink_to("a.ckptfmt")
    os.mkfifo(tmp_path / f"{stem}-000000000000000c.tmp")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / leftover.name).touch()
    before = names(tmp_path)

    assert clean_leftovers(tmp_path) == (str(leftover),)
    assert names(tmp_path) == sorted(set(before) - {leftover.name})
    assert names(tmp_path / "below") == [leftover.name]


def test_a_writer_of_this_process_is_alive_too(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "a.ckptfmt") as file:
        file.write(b"new")
        assert clean_leftovers(tmp_path) == ()
        file.commit()
    assert names(tmp_path) == ["a.ckptfmt"]


def test_leftovers_of_another_machine_are_removed_after_a_day(
    tmp_path: Path, leave_behind: LeaveBehind, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = leave_behind(tmp_path / "a.ckptfmt")
    here = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((here[0], "another", *here[2:])))
    assert clean_leftovers(tmp_path) == (), "a lock may be seen by the writer's own machine only"
    os.utime(leftover, (time.time(), time.time() - DAY + 60))
    assert clean_leftovers(tmp_path) == ()
    os.utime(leftover, (time.time(), time.time() - DAY - 60))
    assert clean_leftovers(tmp_path) == (str(leftover),)


def test_a_live_writer_of_another_machine_is_left_alone_however_old(
    tmp_path: Path, begin_writer: BeginWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_writer(tmp_path / "a.ckptfmt", "half")
    (file,) = hidden(tmp_path)
    os.utime(file, (0, 0))
    assert clean_leftovers(tmp_path) == ()
    here = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((here[0], "another", *here[2:])))
    assert clean_leftovers(tmp_path) == ()


# Where there are no locks.


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_nothing_is_removed_on_a_file_system_without_locks(
    tmp_path: Path, leave_behind: LeaveBehind, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    leftover = leave_behind(tmp_path / "a.ckptfmt")

    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    publish(tmp_path / "a.ckptfmt")
    assert clean_leftovers(tmp_path) == ()
    assert names(tmp_path) == sorted([leftover.name, "a.ckptfmt"])


def test_nothing_is_removed_on_a_system_without_locks(
    tmp_path: Path, leave_behind: LeaveBehind, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = leave_behind(tmp_path / "a.ckptfmt")
    monkeypatch.setattr(file_locks, "HAVE_LOCKS", False)
    monkeypatch.delattr(file_locks, "fcntl")
    monkeypatch.delattr(os, "O_NOFOLLOW")
    publish(tmp_path / "a.ckptfmt")
    assert clean_leftovers(tmp_path) == ()
    assert names(tmp_path) == sorted([leftover.name, "a.ckptfmt"])


# It never makes a save fail.


def test_what_may_not_be_removed_is_left_alone(tmp_path_for_all: Path, no_privileges: None) -> None:
    directory = tmp_path_for_all / "run"
    directory.mkdir()
    with AtomicFile(directory / "a.ckptfmt"):
        (leftover,) = hidden(directory)
    leftover.touch(0o444)  # as unchangeable as another user's
    publish(directory / "a.ckptfmt")
    assert clean_leftovers(directory) == ()
    leftover.chmod(0o644)
    directory.chmod(0o555)
    assert clean_leftovers(directory) == ()
    directory.chmod(0o755)
    assert clean_leftovers(directory) == (str(leftover),)


def test_a_missing_directory_has_no_leftovers(tmp_path: Path) -> None:
    assert clean_leftovers(tmp_path / "missing") == ()


# Orders of events that only chance brings about. Each test lets the other side act at the worst moment: just
# before the first attempt to take a lock.


@pytest.fixture
def before_first_lock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    lock = fcntl.flock

    def arrange(action: Callable[[], None]) -> None:
        pending = [action]

        def lock_later(descriptor: int, operation: int) -> None:
            if pending:
                pending.pop()()
            lock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", lock_later)

    return arrange


BeforeFirstLock = Callable[[Callable[[], None]], None]


def test_a_cleaner_removes_the_file_before_its_writer_locks_it(
    tmp_path: Path, before_first_lock: BeforeFirstLock
) -> None:
    removed: list[str] = []
    before_first_lock(lambda: removed.extend(clean_leftovers(tmp_path)))
    with AtomicFile(tmp_path / "a.ckptfmt") as file:
        assert len(removed) == 1
        assert len(hidden(tmp_path)) == 1, "it has started again with another name"
        file.write(b"new")
        assert clean_leftovers(tmp_path) == ()
        file.commit()
    assert (tmp_path / "a.ckptfmt").read_bytes() == b"new"
    assert names(tmp_path) == ["a.ckptfmt"]


def test_a_cleaner_holds_the_lock_before_the_writer_takes_it(
    tmp_path: Path, before_first_lock: BeforeFirstLock
) -> None:
    locked: list[tuple[Path, int]] = []

    def lock_as_a_cleaner() -> None:
        (path,) = hidden(tmp_path)
        locked.append((path, os.open(path, os.O_WRONLY)))
        fcntl.flock(locked[0][1], fcntl.LOCK_EX)

    before_first_lock(lock_as_a_cleaner)
    with AtomicFile(tmp_path / "a.ckptfmt") as file:
        file.write(b"new")
        path, descriptor = locked[0]
        path.unlink(missing_ok=True)
        os.close(descriptor)
        file.commit()
    assert names(tmp_path) == ["a.ckptfmt"]


def test_another_file_takes_the_name_between_a_cleaners_open_and_lock(
    tmp_path: Path, leave_behind: LeaveBehind, before_first_lock: BeforeFirstLock
) -> None:
    leftover = leave_behind(tmp_path / "a.ckptfmt")

    def replace() -> None:
        leftover.unlink()
        leftover.write_bytes(b"another")

    before_first_lock(replace)
    assert clean_leftovers(tmp_path) == ()
    assert leftover.read_bytes() == b"another"


def test_a_cleaner_comes_right_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def clean_and_replace(source: Path, target: Path) -> None:
        assert clean_leftovers(tmp_path) == ()
        replace(source, target)

    monkeypatch.setattr(os, "replace", clean_and_replace)
    publish(tmp_path / "a.ckptfmt")
    assert names(tmp_path) == ["a.ckptfmt"]


def test_a_writer_publishes_between_a_cleaners_open_and_lock(
    tmp_path: Path, before_first_lock: BeforeFirstLock
) -> None:
    path = tmp_path / "a.ckptfmt"
    with AtomicFile(path) as file:
        file.write(b"new")
        before_first_lock(file.commit)
        assert clean_leftovers(tmp_path) == ()
    assert path.read_bytes() == b"new"


def test_two_cleaners_at_once(tmp_path: Path, leave_behind: LeaveBehind, before_first_lock: BeforeFirstLock) -> None:
    leftover = leave_behind(tmp_path / "a.ckptfmt")
    inner: list[str] = []
    before_first_lock(lambda: inner.extend(clean_leftovers(tmp_path)))
    assert clean_leftovers(tmp_path) == ()
    assert inner == [str(leftover)]


def test_names_taken_by_others_are_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ckptfmt"
    monkeypatch.setattr(os, "urandom", bytes)
    with AtomicFile(path) as first:
        first.write(b"first")
        (taken,) = hidden(tmp_path)
        with pytest.raises(StorageError, match=re.escape(str(tmp_path))):
            publish(path, b"second")
        assert hidden(tmp_path) == {taken}

        numbers = iter([0, 0, 7])
        monkeypatch.setattr(os, "urandom", lambda nbytes: next(numbers).to_bytes(nbytes))
        assert hidden(tmp_path) == {taken}
        first.commit()
    assert path.read_bytes() == b"first"
