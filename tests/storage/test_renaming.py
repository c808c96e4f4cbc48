"""A file is published under a name that is free, and nothing is ever replaced (spec 15.7)."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckptfmt._core.storage.local.publication import renaming
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.renaming import rename_to_free_name
from ckptfmt.errors import StorageError

WAYS = ["exclusive", "link", "take"]


def refused(code: int) -> Callable[..., Any]:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system that has no better way than this one."""
    if request.param != "exclusive":
        monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    if request.param == "take":
        monkeypatch.setattr(os, "link", refused(errno.EPERM))
    return str(request.param)


def publish(path: Path, content: bytes) -> str:
    with AtomicFile(path, replace=False) as file:
        file.write(content)
        file.commit()
    return file.path


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_a_name_that_is_free_is_taken(tmp_path: Path, way: str) -> None:
    assert publish(tmp_path / "a.ckptfmt", b"new") == str(tmp_path / "a.ckptfmt")
    assert (tmp_path / "a.ckptfmt").read_bytes() == b"new"
    assert names(tmp_path) == ["a.ckptfmt"]


def test_whatever_has_the_name_keeps_it(tmp_path: Path, way: str) -> None:
    (tmp_path / "a.ckptfmt").write_bytes(b"old")
    (tmp_path / "a-2.ckptfmt").mkdir()
    (tmp_path / "a-3.ckptfmt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "a-4.ckptfmt")
    before = names(tmp_path)
    assert publish(tmp_path / "a.ckptfmt", b"new") == str(tmp_path / "a-5.ckptfmt")
    assert names(tmp_path) == sorted([*before, "a-5.ckptfmt"])
    assert (tmp_path / "a.ckptfmt").read_bytes() == b"old"
    assert (tmp_path / "a-5.ckptfmt").read_bytes() == b"new"


def test_what_comes_while_the_file_is_written_keeps_its_name(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.ckptfmt"
    with AtomicFile(path, replace=False) as first, AtomicFile(path, replace=False) as second:
        first.write(b"first")
        second.write(b"second")
        second.commit()
        first.commit()
    assert (first.path, second.path) == (str(tmp_path / "a-2.ckptfmt"), str(path))
    assert path.read_bytes() == b"second"
    assert (tmp_path / "a-2.ckptfmt").read_bytes() == b"first"


def test_a_link_that_has_the_name_is_not_followed(tmp_path: Path, way: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "b.ckptfmt").write_bytes(b"another's")
    (tmp_path / "a.ckptfmt").symlink_to("store/b.ckptfmt")
    publish(tmp_path / "a.ckptfmt", b"new")
    assert (tmp_path / "store" / "b.ckptfmt").read_bytes() == b"another's"
    assert names(tmp_path) == ["a-2.ckptfmt", "a.ckptfmt", "store"]


def test_numbers_go_on_behind_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "a-2", "a-700", "a-x", "b-900", "a-1000000000"):
        (tmp_path / f"{name}.ckptfmt").touch()
    assert publish(tmp_path / "a.ckptfmt", b"new") == str(tmp_path / "a-701.ckptfmt")


def test_a_directory_that_can_not_be_listed_will_do(tmp_path_for_all: Path, no_privileges: None) -> None:
    directory = tmp_path_for_all / "run"
    directory.mkdir(0o300)
    for _ in range(3):
        publish(directory / "a.ckptfmt", b"new")
    directory.chmod(0o755)
    assert names(directory) == ["a-2.ckptfmt", "a-3.ckptfmt", "a.ckptfmt"]


RACE = """
import errno, os, sys
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication import renaming
if sys.argv[2] != "exclusive":
    renaming._renameat2 = lambda: None
if sys.argv[2] == "take":
    def refuse(*_):
        raise OSError(errno.EPERM, "")
    os.link = refuse
for number in range(20):
    with AtomicFile(sys.argv[1], replace=False) as file:
        file.write(f"{os.getpid()} {number}".encode())
        file.commit()
"""


@pytest.mark.parametrize("name", WAYS)
def test_of_many_writers_at_once_none_loses_anything(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.ckptfmt"
    writers = [subprocess.Popen([sys.executable, "-c", RACE, path, name]) for _ in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    contents = {entry.read_bytes().decode() for entry in tmp_path.iterdir()}
    assert contents == {f"{writer.pid} {number}" for writer in writers for number in range(20)}
    assert len(names(tmp_path)) == 80


def test_a_link_whose_answer_was_lost_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over NFS: the server has done it, and says of the repeated request that the name is taken."""
    link = os.link

    def lose_the_answer(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "link", lose_the_answer)
    assert publish(tmp_path / "a.ckptfmt", b"new") == str(tmp_path / "a.ckptfmt")
    assert names(tmp_path) == ["a.ckptfmt"]


def test_a_name_that_is_lost_again_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sets the empty file aside that was to keep the name, and publishes there."""
    source, target = tmp_path / "source", tmp_path / "a.ckptfmt"
    source.write_bytes(b"new")
    close_in_on = os.open

    def open_and_lose(path: Path, *arguments: int) -> int:
        descriptor = close_in_on(path, *arguments)
        target.rename(tmp_path / "aside")
        target.write_bytes(b"another's")
        return descriptor

    monkeypatch.setattr(renaming, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "link", refused(errno.EPERM))
    monkeypatch.setattr(os, "open", open_and_lose)
    with pytest.raises(FileExistsError):
        rename_to_free_name(source, target)
    assert target.read_bytes() == b"another's"
    assert source.read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_what_the_system_refuses_is_an_error_and_nothing_is_left(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    if way == "exclusive":

        def fail(*_: object) -> int:
            ctypes.set_errno(code)
            return -1

        monkeypatch.setattr(renaming, "_renameat2", lambda: fail)
    else:
        monkeypatch.setattr(os, {"link": "link", "take": "replace"}[way], refused(code))
    with pytest.raises(StorageError) as caught:
        publish(tmp_path / "a.ckptfmt", b"new")
    assert caught.value.errno == code
    assert names(tmp_path) == []
