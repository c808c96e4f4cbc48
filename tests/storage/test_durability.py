"""Directories are made so that they stay, and what cannot be flushed in one way is flushed in another, or told."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptfmt._core.ops.directory.pins import pin
from ckptfmt._core.storage.local import durability
from ckptfmt._core.storage.local.publication.atomic_directory import AtomicDirectory, make_directory
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt.errors import StorageError

linux = pytest.mark.skipif(sys.platform != "linux", reason="syncfs")


def publish(path: Path) -> None:
    with AtomicFile(path) as file:
        file.write(b"new")
        file.commit()


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of what is flushed from now on, and made."""
    done: list[str] = []
    flush, make = os.fsync, os.mkdir

    def fsync(descriptor: int) -> None:
        done.append("flush " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        flush(descriptor)

    def mkdir(path: Path, mode: int = 0o777) -> None:
        done.append(f"make {path.name}")
        make(path, mode)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "mkdir", mkdir)
    return done


@linux
def test_each_directory_is_durable_before_the_next_one_is_made_in_it(tmp_path: Path, flushed: list[str]) -> None:
    make_directory(tmp_path / "a" / "b" / "c")
    assert flushed == [
        *(f"flush {tmp_path.parent.name}",),  # of another try, ended by a kill
        *("make a", f"flush {tmp_path.name}"),
        *("make b", "flush a"),
        *("make c", "flush b"),
    ]


@linux
def test_one_that_is_there_is_flushed_all_the_same(tmp_path: Path, flushed: list[str]) -> None:
    make_directory(tmp_path)
    assert flushed == [f"flush {tmp_path.parent.name}"], "a try before may have been ended by a kill"


def test_one_that_another_process_makes_meanwhile_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = os.mkdir

    def late(path: Path, mode: int = 0o777) -> None:
        make(path, mode)
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", late)
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_relative_paths_links_and_parents_named_by_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_directory("a/b")
    (tmp_path / "link").symlink_to("a/b")
    make_directory("link/c")
    make_directory("d/../e")
    make_directory(".")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert (tmp_path / "e").is_dir()


@pytest.mark.parametrize("below", ["", "x"])
def test_what_is_no_directory_is_refused(tmp_path: Path, below: str) -> None:
    path = tmp_path / "file" / below
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        make_directory(path)
    assert str(path) in str(caught.value)
    assert (tmp_path / "file").is_file()


def test_a_new_directory_that_cannot_be_flushed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError) as caught:
        make_directory(tmp_path / "a")
    assert caught.value.errno == errno.EIO


# Directories that may be written to and not be opened.


@pytest.fixture
def closed(tmp_path_for_all: Path, no_privileges: None) -> Path:
    directory = tmp_path_for_all / "run"
    directory.mkdir()
    (directory / "a").touch()
    directory.chmod(0o300)
    return directory


@pytest.fixture
def file_systems(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list of that by which a file system is flushed from now on."""
    done: list[Path] = []
    flush = durability._flush_file_system

    def flush_file_system(descriptor: int) -> bool:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        return flush(descriptor)

    monkeypatch.setattr(durability, "_flush_file_system", flush_file_system)
    return done


def write_directory(path: Path) -> None:
    with AtomicDirectory(path) as directory:
        (directory.work / "member").touch()
        directory.commit()


@linux
@pytest.mark.parametrize(
    ("act", "name"),
    [
        (lambda directory: publish(directory / "b"), "b"),
        (lambda directory: write_directory(directory / "c"), "c"),
        (lambda directory: make_directory(directory / "d"), "d"),
        (lambda directory: pin(directory / "a"), "a.pin"),
    ],
)
def test_in_one_that_cannot_be_opened_the_whole_file_system_is_flushed(
    closed: Path, file_systems: list[Path], act: Callable[[Path], object], name: str
) -> None:
    act(closed)
    assert file_systems == [closed / name]
    closed.chmod(0o700)


@linux
@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
def test_where_too_many_files_are_open_the_whole_file_system_is_flushed(
    tmp_path: Path, file_systems: list[Path], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    usual = os.open

    def refuse_directories(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECTORY:
            raise OSError(error, os.strerror(error))
        return usual(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse_directories)
    publish(tmp_path / "a")
    assert file_systems == [tmp_path / "a"]


@linux
def test_where_that_is_not_offered_it_is_told(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "_flush_file_system", lambda _: False)
    with pytest.raises(StorageError) as saved:
        publish(closed / "b")
    with pytest.raises(StorageError) as made:
        make_directory(closed / "d")
    assert [caught.value.errno for caught in (saved, made)] == [errno.EACCES, errno.EACCES]
    assert (closed / "b").exists()
    closed.chmod(0o700)


@linux
def test_a_file_system_that_cannot_be_flushed_is_told(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durability, "_flush_file_system", fail)
    with pytest.raises(StorageError) as caught:
        publish(closed / "b")
    assert caught.value.errno == errno.EIO
    assert (closed / "b").exists()
    closed.chmod(0o700)


@linux
def test_the_parent_of_one_that_is_there_need_not_be_opened(tmp_path_for_all: Path, no_privileges: None) -> None:
    above = tmp_path_for_all / "above"
    (above / "run").mkdir(parents=True)
    above.chmod(0o100)
    make_directory(above / "run" / "new")
    assert (above / "run" / "new").is_dir()
    above.chmod(0o700)


@linux
def test_the_file_system_of_an_open_file_is_flushed(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    assert durability._flush_file_system(descriptor)
    os.close(descriptor)
