"""Temporary files and locks are for those who may clean up; what is published has the usual permissions."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ckptfmt._core.storage.local.lock import LOCK_NAME, directory_lock, prune_lock
from ckptfmt._core.storage.local.permissions import usual_mode
from ckptfmt._core.storage.local.publication.atomic_directory import AtomicDirectory
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.leftovers import Writer, clean_leftovers, temporary_files
from ckptfmt.errors import LockedError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to be several users")

ALICE, BOB, EVE = 6001, 6002, 6003
LAB, OTHERS = 6100, 6200


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def temporary(directory: Path) -> Path:
    (found,) = directory.glob(".*.tmp")
    return found


def default_acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY_IN_PARTICULAR = 0xFFFFFFFF
ACLS = {
    "none": None,
    "minimal": default_acl((1, 7, NOBODY_IN_PARTICULAR), (4, 5, NOBODY_IN_PARTICULAR), (0x20, 0, NOBODY_IN_PARTICULAR)),
    "named": default_acl(
        (1, 7, NOBODY_IN_PARTICULAR),
        (2, 7, EVE),
        (4, 0, NOBODY_IN_PARTICULAR),
        (8, 7, LAB),
        (0x10, 7, NOBODY_IN_PARTICULAR),
        (0x20, 4, NOBODY_IN_PARTICULAR),
    ),
}


@pytest.fixture(params=list(ACLS))
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a directory with each kind of access list."""
    value = ACLS[request.param]
    if value is not None:
        try:
            os.setxattr(tmp_path, "system.posix_acl_default", value)
        except OSError:
            pytest.skip("no access lists on this file system")
    return tmp_path


def access_list(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, "system.posix_acl_access")
    except OSError:
        return None


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("mode", [0o755, 0o775, 0o777, 0o2775, 0o1777])
def test_what_is_published_has_the_permissions_of_any_new_file(place: Path, mask: int, mode: int) -> None:
    place.chmod(mode)
    with umask(mask):
        (place / "plain").write_bytes(b"")
        (place / "plain-directory").mkdir()
        with AtomicFile(place / "ours") as file:
            file.commit()
        with AtomicDirectory(place / "our-directory") as directory:
            directory.commit()
    for plain, ours in (("plain", "ours"), ("plain-directory", "our-directory")):
        assert oct(mode_of(place / ours)) == oct(mode_of(place / plain))
        assert access_list(place / ours) == access_list(place / plain)
        assert (place / ours).stat().st_gid == (place / plain).stat().st_gid


@pytest.mark.parametrize(
    ("mode", "mask", "expected"),
    [
        (0o755, 0o022, 0o600),
        (0o755, 0o000, 0o600),  # whoever may not remove it has no business with it
        (0o775, 0o022, 0o600),  # the group will not be able to write to it once it is published
        (0o775, 0o002, 0o660),
        (0o775, 0o000, 0o660),
        (0o777, 0o000, 0o666),
        (0o1777, 0o000, 0o660),
        (0o777, 0o077, 0o600),
    ],
)
def test_what_is_not_published_is_for_those_who_may_clean_up(
    tmp_path: Path, mode: int, mask: int, expected: int
) -> None:
    tmp_path.chmod(mode)
    with umask(mask):
        with AtomicFile(tmp_path / "a"):
            assert oct(mode_of(temporary(tmp_path))) == oct(expected)
        with AtomicDirectory(tmp_path / "b"):
            assert oct(mode_of(temporary(tmp_path)) & 0o666) == oct(expected)


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o755, 0o600), (0o700, 0o600), (0o775, 0o660), (0o777, 0o666), (0o1777, 0o660)]
)
@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_lock_is_for_those_who_may_remove(tmp_path: Path, mode: int, expected: int, mask: int) -> None:
    tmp_path.chmod(mode)
    with umask(mask), directory_lock(tmp_path):
        assert oct(mode_of(tmp_path / LOCK_NAME)) == oct(expected)
    tmp_path.chmod(0o700)
    with umask(mask), directory_lock(tmp_path):
        assert mode_of(tmp_path / LOCK_NAME) == 0o600, "it follows the directory"


def test_the_umask_is_told_where_proc_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> bytes:
        raise FileNotFoundError(path)

    with umask(0o027):
        expected = usual_mode(tmp_path)
        monkeypatch.setattr(Path, "read_bytes", missing)
        assert usual_mode(tmp_path) == expected == 0o640
        assert os.umask(0o027) == 0o027, "it is as before"


# Several users.


def as_user(user: int, group: int, act: Callable[[], object], *, also: int | None = None) -> object:
    """Do something as another user, in a process of its own; return the outcome, or the name of the exception."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([] if also is None else [also])
            os.setgid(group)
            os.setuid(user)
            outcome: object = act()
        except BaseException as error:
            traceback.print_exc()
            outcome = type(error).__name__
        os.write(writer, json.dumps(outcome).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told: object = json.load(pipe)
    os.waitpid(child, 0)
    return told


def lock_for_reading(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return "locked"


def take_both(directory: Path) -> str:
    with prune_lock(directory), directory_lock(directory, wait_seconds=0):
        return "held"


def leave_behind(path: Path, mask: int, kind: type[AtomicFile] | type[AtomicDirectory]) -> str:
    """Begin to publish, to end without an `__exit__`; return the path of what is left."""
    os.umask(mask)
    kind(path).__enter__()
    return str(temporary(path.parent))


KINDS = pytest.mark.parametrize("kind", [AtomicFile, AtomicDirectory])


@needs_root
@KINDS
def test_a_stranger_can_lock_neither_the_lock_nor_what_is_left_over(
    tmp_path_for_all: Path, kind: type[AtomicFile] | type[AtomicDirectory]
) -> None:
    run = tmp_path_for_all / "run"
    run.mkdir(mode=0o755)
    os.chown(run, ALICE, LAB)
    assert as_user(ALICE, LAB, lambda: take_both(run)) == "held"
    left = as_user(ALICE, LAB, lambda: leave_behind(run / "a", 0o022, kind))
    assert as_user(EVE, OTHERS, lambda: lock_for_reading(run / LOCK_NAME)) == "PermissionError"
    assert as_user(EVE, OTHERS, lambda: lock_for_reading(Path(str(left)))) == "PermissionError"
    assert as_user(ALICE, LAB, lambda: clean_leftovers(run)) == [left]


@needs_root
@KINDS
def test_two_users_of_a_group_share_a_directory(
    tmp_path_for_all: Path, kind: type[AtomicFile] | type[AtomicDirectory]
) -> None:
    run = tmp_path_for_all / "run"
    run.mkdir()
    os.chown(run, ALICE, LAB)
    run.chmod(0o2775)
    for user in (ALICE, BOB, ALICE):
        assert as_user(user, LAB, lambda: take_both(run)) == "held"
    left = as_user(ALICE, LAB, lambda: leave_behind(run / "a", 0o002, kind))
    assert as_user(BOB, LAB, lambda: clean_leftovers(run)) == [left], "each cleans up after the others"
    left = as_user(ALICE, LAB, lambda: leave_behind(run / "a", 0o022, kind))
    assert as_user(BOB, LAB, lambda: clean_leftovers(run)) == [], "what would be hers alone is hers to clean up"
    assert as_user(ALICE, LAB, lambda: clean_leftovers(run)) == [left]


@needs_root
def test_the_lock_belongs_to_the_group_of_the_directory_even_if_that_gives_files_none(tmp_path_for_all: Path) -> None:
    run = tmp_path_for_all / "run"
    run.mkdir()
    os.chown(run, ALICE, LAB)
    run.chmod(0o775)

    assert as_user(ALICE, OTHERS, lambda: take_both(run), also=LAB) == "held"
    assert (run / LOCK_NAME).stat().st_gid == LAB
    assert as_user(BOB, LAB, lambda: take_both(run)) == "held"


@needs_root
def test_in_a_sticky_directory_each_user_has_a_lock(tmp_path_for_all: Path) -> None:
    shared = tmp_path_for_all / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    assert as_user(ALICE, OTHERS, lambda: take_both(shared)) == "held"
    assert as_user(EVE, LAB, lambda: lock_for_reading(shared / LOCK_NAME)) == "PermissionError"
    assert as_user(EVE, LAB, lambda: take_both(shared)) == "held"

    def twice() -> str:
        with directory_lock(shared), ThreadPoolExecutor(1) as another:
            another.submit(take_both, shared).result()
            return "held twice"

    assert as_user(EVE, LAB, twice) == LockedError.__name__


@needs_root
def test_what_a_stranger_may_not_open_is_listed_without_its_writer(tmp_path_for_all: Path) -> None:
    run = tmp_path_for_all / "run"
    run.mkdir(mode=0o755)
    with AtomicFile(run / "a.ckptfmt"):
        told = as_user(EVE, OTHERS, lambda: [file.writer for file in temporary_files(run)])
    assert told == [Writer.UNKNOWN]


# Directories that are left over.

KILLED = """
import sys
from ckptfmt._core.storage.local.publication.atomic_directory import AtomicDirectory
with AtomicDirectory(sys.argv[1]) as directory:
    (directory.work / "member").write_bytes(b"half")
    (directory.work / "below").mkdir()
    print("begun", flush=True)
    sys.stdin.readline()
    directory.commit()
"""


@contextlib.contextmanager
def writer_of_a_directory(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def test_a_directory_of_a_living_writer_stays_and_that_of_a_dead_one_goes(tmp_path: Path) -> None:
    with writer_of_a_directory(tmp_path / "out") as process:
        assert clean_leftovers(tmp_path) == ()
        process.kill()
        process.wait()
        left = temporary(tmp_path)
        assert clean_leftovers(tmp_path, "other") == ()
        assert clean_leftovers(tmp_path, "out") == (str(left),)
    assert not list(tmp_path.iterdir())


def test_the_next_writer_of_a_directory_removes_what_the_last_one_left(tmp_path: Path) -> None:
    with writer_of_a_directory(tmp_path / "out") as process:
        process.kill()
        process.wait()
    with AtomicDirectory(tmp_path / "out") as directory:
        assert list(tmp_path.iterdir()) == [directory.work]
        directory.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_living_writer_publishes_although_it_was_cleaned_around(tmp_path: Path) -> None:
    with writer_of_a_directory(tmp_path / "out") as process:
        clean_leftovers(tmp_path)
        process.communicate("go on\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["below", "member"]


def test_a_directory_of_another_machine_is_left_until_nothing_in_it_has_changed_for_a_day(tmp_path: Path) -> None:
    left = tmp_path / ".out.00000000-0123456789abcdef.tmp"
    left.mkdir()
    (left / "member").touch()
    os.utime(left, (0, 0))
    assert clean_leftovers(tmp_path) == ()
    os.utime(left / "member", (0, 0))
    os.utime(left, (0, 0))
    assert clean_leftovers(tmp_path) == (str(left),)


def test_a_directory_that_a_cleaner_takes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    taken: list[str] = []

    def lock_later(descriptor: int, operation: int) -> None:
        if not taken:
            monkeypatch.setattr(fcntl, "flock", lock)
            taken.extend(clean_leftovers(tmp_path))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_later)
    with AtomicDirectory(tmp_path / "out") as directory:
        assert len(taken) == 1
        assert str(directory.work) not in taken
        directory.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_directory_that_a_link_leads_to_is_filled(tmp_path: Path) -> None:
    (tmp_path / "store" / "7").mkdir(parents=True)
    (tmp_path / "out").symlink_to("store/7")
    with AtomicDirectory(tmp_path / "out") as directory:
        (directory.work / "member").touch()
        directory.commit()
    assert (tmp_path / "store" / "7" / "member").exists()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["7"]
