"""A file appears whole or not at all (spec 15.3, 15.4, 15.5)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptfmt._core.storage.local import file_locks
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers
from ckptfmt.errors import StorageError

HERE = Path(__file__).parent
BeginWriter = Callable[[Path, str], "subprocess.Popen[str]"]


def publish(path: Path | str, content: bytes, expected_bytes: int | None = None) -> None:
    with AtomicFile(path, expected_bytes=expected_bytes) as file:
        file.write(content)
        file.commit()


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


# How a file gets its name, and by which operation.
NAMING = {"replace": "replace", "exclusive": "set_errno", "link": "link", "take": "replace"}


def disturb(mode: str, directory: Path, naming: str) -> list[dict[str, Any]]:
    """Disturb a publication at every file operation; see `disturbed_writer.py`."""
    done = subprocess.run(
        [sys.executable, HERE / "disturbed_writer.py", mode, directory, naming],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    outcomes: list[dict[str, Any]] = json.loads(done.stdout)
    operations = {outcome["operation"] for outcome in outcomes}
    assert {"open", "flock", "pwrite", "fsync", NAMING[naming]} <= operations
    return outcomes


# What 15.3 to 15.5 promise.


@pytest.mark.parametrize("naming", NAMING)
def test_publication_is_atomic_under_kill_at_every_file_operation(tmp_path: Path, naming: str) -> None:
    outcomes = disturb("kill", tmp_path, naming)
    assert {outcome["ended"] for outcome in outcomes} == {"killed"}
    contents = [outcome["content"] for outcome in outcomes]
    expected = {
        "replace": ["old", "new"],
        "exclusive": ["none", "new"],
        "link": ["none", "new"],
        "take": ["none", "empty", "new"],  # an empty file is visibly no checkpoint
    }[naming]
    assert list(dict.fromkeys(contents)) == expected
    assert contents == sorted(contents, key=expected.index), "one after the other, and never back"
    assert any(outcome["others"] for outcome in outcomes), "a kill leaves a temporary file behind"
    assert not any(outcome["next"] for outcome in outcomes), "which the next publication removes"
    left = [outcome for outcome in outcomes if outcome["content"] == "new" and outcome["others"]]
    assert bool(left) == (naming == "link"), "only between link and unlink it has both names"


@pytest.mark.parametrize("naming", NAMING)
def test_failure_removes_the_temporary_and_keeps_the_target(tmp_path: Path, naming: str) -> None:
    outcomes = disturb("fail", tmp_path, naming)
    before = "old" if naming == "replace" else "none"
    # A temporary file that cannot be removed once it is published has two names, until the next writer comes.
    assert {outcome["operation"] for outcome in outcomes if outcome["others"]} <= (
        {"unlink"} if naming == "link" else set()
    )
    assert {outcome["ended"] for outcome in outcomes} == {"StorageError", "finished"}
    for outcome in outcomes:
        if outcome["ended"] == "finished":
            assert outcome["content"] == "new"
        elif outcome["content"] == "new":
            assert outcome["operation"] in {"open", "fsync"}, "only to flush the directory comes after"
        else:
            assert outcome["content"] == before or (naming, outcome["content"]) == ("take", "empty")
    failed = {outcome["operation"] for outcome in outcomes if outcome["content"] == before}
    assert {"open", "pwrite", "ftruncate", "fsync", NAMING[naming]} <= failed


@pytest.mark.parametrize("naming", NAMING)
def test_interrupt_leaves_nothing_behind(tmp_path: Path, naming: str) -> None:
    outcomes = disturb("interrupt", tmp_path, naming)
    assert {outcome["ended"] for outcome in outcomes} == {"KeyboardInterrupt"}
    before = "old" if naming == "replace" else "none"
    assert {outcome["content"] for outcome in outcomes} - {"empty"} == {before, "new"}
    assert naming == "take" or all(outcome["content"] != "empty" for outcome in outcomes)
    assert not any(outcome["others"] for outcome in outcomes)


@pytest.mark.parametrize("pause", [None, signal.SIGSTOP])
def test_live_writers_temporary_is_not_removed(
    tmp_path: Path, begin_writer: BeginWriter, pause: signal.Signals | None
) -> None:
    path = tmp_path / "a.ckptfmt"
    writer = begin_writer(path, "theirs")
    if pause is not None:
        writer.send_signal(pause)
    (its_temporary,) = names(tmp_path)

    publish(path, b"ours")
    assert clean_leftovers(tmp_path) == ()
    assert names(tmp_path) == sorted([its_temporary, "a.ckptfmt"])

    writer.send_signal(signal.SIGCONT)
    writer.communicate("go on\n", timeout=60)
    assert writer.returncode == 0
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["a.ckptfmt"]


def test_temporary_file_is_hidden_beside_the_target_and_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    flush, replace = os.fsync, os.replace

    def recorded_flush(descriptor: int) -> None:
        found = os.fstat(descriptor)
        events.append("flush directory" if stat.S_ISDIR(found.st_mode) else f"flush {found.st_size} bytes")
        flush(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_flush)
    monkeypatch.setattr(os, "replace", recorded_replace)
    with AtomicFile(tmp_path / "a.ckptfmt") as file:
        file.write(b"content")
        (name,) = names(tmp_path)
        assert name.startswith(".a.ckptfmt.")
        assert name.endswith(".tmp")
        file.commit()
    assert events == ["flush 7 bytes", "rename", "flush directory"]


# Content.


@pytest.mark.parametrize("expected_bytes", [None, 0, 10, 300_000, 1_000_000])
def test_file_holds_exactly_what_was_written(tmp_path: Path, expected_bytes: int | None) -> None:
    path = tmp_path / "a.ckptfmt"
    content = os.urandom(300_000)
    with AtomicFile(path, expected_bytes=expected_bytes) as file:
        for part in (content[:1], bytearray(content[1:5000]), b"", memoryview(content)[5000:]):
            file.write(part)
        assert file.position == len(content)
        file.commit()
    assert path.read_bytes() == content


def test_writes_cut_short_by_the_system_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_write = os.pwrite

    def short_write(descriptor: int, data: memoryview, offset: int) -> int:
        return whole_write(descriptor, data.cast("B")[:777], offset)

    monkeypatch.setattr(os, "pwrite", short_write)
    path = tmp_path / "a.ckptfmt"
    content = os.urandom(100_000)
    with AtomicFile(path) as file:
        file.write(content)
        file.write(memoryview(content).cast("i", (250, 100)))
        file.commit()
    assert path.read_bytes() == content * 2


def test_a_system_that_writes_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([0])  # a second attempt would end the test with StopIteration
    monkeypatch.setattr(os, "pwrite", lambda _descriptor, _data, _offset: next(answers))
    with pytest.raises(StorageError, match=r"a\.ckptfmt"):
        publish(tmp_path / "a.ckptfmt", b"new")
    assert names(tmp_path) == []


def test_signals_do_not_break_a_publication(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    content = os.urandom(4_000_000)
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        publish(path, content, expected_bytes=len(content))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert path.read_bytes() == content


# What happens at the end.


def test_leaving_without_commit_publishes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    path.write_bytes(b"old")
    with AtomicFile(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.ckptfmt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_of_the_caller_publishes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def publish_and_fail() -> None:
        with AtomicFile(tmp_path / "a.ckptfmt") as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        publish_and_fail()
    assert names(tmp_path) == []


def test_abort_may_be_called_again_and_ends_it(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "a.ckptfmt") as file:
        file.write(b"new")
        file.abort()
        assert names(tmp_path) == []
        file.abort()
        with pytest.raises(ValueError):
            file.commit()
    assert names(tmp_path) == []


def test_abort_after_commit_keeps_what_was_published(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    with AtomicFile(path) as file:
        file.write(b"new")
        file.commit()
        file.abort()
        with pytest.raises(ValueError):
            file.write(b"more")
    assert path.read_bytes() == b"new"


def test_one_object_publishes_once(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "a.ckptfmt") as file:
        file.commit()
    with pytest.raises(ValueError), file:
        pass


@pytest.mark.parametrize("failing", ["pwrite", "fsync"])
def test_nothing_is_published_after_a_failure_that_the_caller_ignores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "a.ckptfmt"
    path.write_bytes(b"old")

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with AtomicFile(path) as file:
        file.write(b"half")
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, fail)
            with pytest.raises(StorageError) as caught:
                (file.commit if failing == "fsync" else lambda: file.write(b"other half"))()
            assert caught.value.errno == errno.EIO
        with pytest.raises(ValueError):
            file.commit()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.ckptfmt"]


@pytest.fixture
def fail_to_flush_directories(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    flush = os.fsync

    def fail_with(error: int) -> None:
        def fail_for_directories(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(error, os.strerror(error))
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", fail_for_directories)

    return fail_with


def test_a_directory_that_can_not_be_flushed_is_told_apart(
    tmp_path: Path, fail_to_flush_directories: Callable[[int], None]
) -> None:
    fail_to_flush_directories(errno.EIO)
    with pytest.raises(StorageError) as caught:
        publish(tmp_path / "a.ckptfmt", b"new")
    assert caught.value.errno == errno.EIO
    assert (tmp_path / "a.ckptfmt").read_bytes() == b"new"


def test_a_file_system_whose_directories_need_no_flush_will_do(
    tmp_path: Path, fail_to_flush_directories: Callable[[int], None]
) -> None:
    fail_to_flush_directories(errno.EINVAL)
    publish(tmp_path / "a.ckptfmt", b"new")
    assert (tmp_path / "a.ckptfmt").read_bytes() == b"new"


# Two writers.


def test_writers_at_once_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    code = """
import sys
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
for _ in range(20):
    with AtomicFile(sys.argv[1]) as file:
        for _ in range(10):
            file.write(sys.argv[2].encode() * 10_000)
        file.commit()
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, path, letter]) for letter in "abc"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen <= {letter * 100_000 for letter in (b"a", b"b", b"c")}
    assert names(tmp_path) == ["a.ckptfmt"]


def test_the_last_of_two_writers_to_commit_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    with AtomicFile(path) as first, AtomicFile(path) as second:
        first.write(b"first")
        second.write(b"second")
        second.commit()
        assert path.read_bytes() == b"second"
        first.commit()
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["a.ckptfmt"]


# Mode, links and paths.


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000], indirect=True)
@pytest.mark.parametrize("old_mode", [None, 0o600, 0o777])
def test_mode_comes_from_the_umask(tmp_path: Path, umask: int, old_mode: int | None) -> None:
    path = tmp_path / "a.ckptfmt"
    if old_mode is not None:
        path.touch()
        path.chmod(old_mode)
    publish(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    real = tmp_path / "store" / "7.ckptfmt"
    real.write_bytes(b"old")
    (tmp_path / "between").symlink_to("store/7.ckptfmt")
    link = tmp_path / "latest.ckptfmt"
    link.symlink_to("between")
    with AtomicFile(link) as file:
        file.write(b"new")
        assert len(names(real.parent)) == 2, "the temporary file is where the rename will be"
        file.commit()
    assert link.readlink() == Path("between")
    assert real.read_bytes() == b"new"
    assert names(real.parent) == ["7.ckptfmt"]


def test_a_dangling_link_gets_its_file(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    link = tmp_path / "latest.ckptfmt"
    link.symlink_to("store/8.ckptfmt")
    publish(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "store" / "8.ckptfmt").read_bytes() == b"new"


def test_the_working_directory_may_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with AtomicFile("a.ckptfmt") as file:
        file.write(b"new")
        monkeypatch.chdir("elsewhere")
        file.commit()
    assert file.path == "a.ckptfmt"
    assert names(tmp_path) == ["a.ckptfmt", "elsewhere"]
    assert names(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("name", ["a", "n" * 255, "\N{SNOWMAN}" * 85, "with space\n\udcff", ".a.tmp", "-"])
def test_any_name_that_the_file_system_takes_will_do(tmp_path: Path, name: str) -> None:
    publish(tmp_path / name, b"new")
    publish(tmp_path / name, b"newer")
    assert (tmp_path / name).read_bytes() == b"newer"
    assert names(tmp_path) == [name]


def test_what_can_not_be_published_to_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("missing/a.ckptfmt")
    (tmp_path / "into_file").symlink_to("file/a.ckptfmt")
    os.mkfifo(tmp_path / "pipe")
    refused: dict[str | Path, tuple[int | None, str | Path]] = {
        tmp_path: (None, tmp_path),
        f"{tmp_path}/new/": (None, tmp_path / "new"),
        tmp_path / "missing" / "a.ckptfmt": (None, tmp_path / "missing"),
        tmp_path / "nowhere": (None, tmp_path / "missing"),
        tmp_path / "file" / "a.ckptfmt": (errno.ENOTDIR, tmp_path / "file"),
        tmp_path / "into_file": (errno.ENOTDIR, tmp_path / "into_file"),
        tmp_path / "circle": (errno.ELOOP, tmp_path / "circle"),
        tmp_path / ("n" * 256): (errno.ENAMETOOLONG, "n" * 256),
        tmp_path / "pipe": (None, tmp_path / "pipe"),
        os.devnull: (None, os.devnull),
        "": (None, "''"),
        "nul\0byte": (None, r"nul\x00byte"),
        "s3://bucket/a.ckptfmt": (None, "s3://"),
    }
    before = names(tmp_path)
    for path, (code, named) in refused.items():
        with pytest.raises(StorageError) as caught, AtomicFile(path):
            pass
        assert caught.value.errno == code
        assert str(named) in str(caught.value)
    assert names(tmp_path) == before
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_socket_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a.ckptfmt")
        with pytest.raises(StorageError, match=r"a\.ckptfmt"), AtomicFile("a.ckptfmt"):
            pass
    assert names(tmp_path) == ["a.ckptfmt"]


# What the system refuses.


def test_a_directory_removed_in_mid_write_is_one_clear_error(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    with AtomicFile(directory / "a.ckptfmt") as file:
        shutil.rmtree(directory)
        file.write(b"new")
        with pytest.raises(StorageError, match=re.escape(str(directory))):
            file.commit()
    assert names(tmp_path) == []


def test_a_directory_without_permission_is_one_clear_error(tmp_path_for_all: Path, no_privileges: None) -> None:
    directory = tmp_path_for_all / "run"
    directory.mkdir()
    path = directory / "a.ckptfmt"
    publish(path, b"old")
    directory.chmod(0o555)
    with pytest.raises(StorageError, match=re.escape(str(path))) as caught:
        publish(path, b"new")
    directory.chmod(0o755)
    assert caught.value.errno == errno.EACCES
    assert path.read_bytes() == b"old"


def test_a_directory_that_can_not_be_listed_will_do(tmp_path_for_all: Path, no_privileges: None) -> None:
    directory = tmp_path_for_all / "run"
    directory.mkdir(0o300)
    publish(directory / "a.ckptfmt", b"new")
    assert (directory / "a.ckptfmt").read_bytes() == b"new"
    directory.chmod(0o755)


def test_a_limit_on_the_size_of_files_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for expected_bytes in (None, 150_000):
            with pytest.raises(StorageError, match=r"1\d0,000") as caught:
                publish(path, bytes(150_000), expected_bytes)
            assert caught.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.ckptfmt"]


def test_a_quota_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StorageError) as caught:
        publish(tmp_path / "a.ckptfmt", b"new")
    assert caught.value.errno == errno.EDQUOT
    assert names(tmp_path) == []


def test_a_full_or_read_only_disk_is_one_clear_error(tmp_path: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*alone, "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody mount a small disk")
    done = subprocess.run(
        [*alone, sys.executable, HERE / "on_small_disk.py", tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    full, reserved, unused, no_inodes, read_only = json.loads(done.stdout)
    assert full["errno"] == errno.ENOSPC
    assert full["begun"]
    assert reserved["errno"] == errno.ENOSPC
    assert "2,000,000" in reserved["error"], "how much is needed"
    assert not reserved["begun"], "a full disk shows before the work is done"
    assert unused["error"] is None
    assert no_inodes["errno"] == errno.ENOSPC
    assert ["inodes" in outcome["error"] for outcome in (full, reserved, no_inodes)] == [False, False, True]
    assert read_only["errno"] == errno.EROFS
    for outcome in (full, reserved, no_inodes, read_only):
        assert outcome["content"], "what was there is unchanged"
        assert outcome["others"] == []


# Other systems.


def test_publication_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_locks, "HAVE_LOCKS", False)
    monkeypatch.delattr(file_locks, "fcntl")
    path = tmp_path / "a.ckptfmt"
    replace = os.replace

    def windows_replace(source: Path, target: Path) -> None:
        opened = {entry.resolve() for entry in Path("/proc/self/fd").iterdir()}
        assert source not in opened, "Windows renames no open file"
        replace(source, target)

    monkeypatch.setattr(os, "replace", windows_replace)
    publish(path, b"old")
    publish(path, b"new")
    with AtomicFile(path) as file:
        file.write(b"given up")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.ckptfmt"]


@pytest.mark.parametrize("offered", [True, False])
def test_on_macos_the_cache_of_the_disk_is_flushed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: bool
) -> None:
    calls: list[object] = []

    def recorded_fcntl(_descriptor: int, command: int) -> int:
        calls.append(command)
        if not offered:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        return 0

    def recorded_fsync(_descriptor: int) -> None:
        calls.append("fsync")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", recorded_fcntl)
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    publish(tmp_path / "a.ckptfmt", b"new")
    assert calls == ([51, 51] if offered else [51, "fsync", 51, "fsync"])
