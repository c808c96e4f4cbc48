"""A directory that appears as a whole or not at all, and what a process that is told to end leaves behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckptfmt import StorageError
from ckptfmt._core.storage.local.publication.atomic_directory import AtomicDirectory
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt._core.storage.local.publication.temporary import discard_all


def test_it_appears_with_all_of_its_files(tmp_path: Path) -> None:
    with AtomicDirectory(tmp_path / "out") as directory:
        (directory.work / "a").write_bytes(b"1")
        assert not (tmp_path / "out").exists()
        directory.commit()
    assert (tmp_path / "out" / "a").read_bytes() == b"1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_an_empty_directory_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with AtomicDirectory(tmp_path / "out") as directory:
        (directory.work / "a").write_bytes(b"1")
        directory.commit()
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["a"]


@pytest.mark.parametrize("what", ["file", "directory", "dangling link"])
def test_what_is_there_stays(tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "file":
        out.write_bytes(b"mine")
    elif what == "directory":
        out.mkdir()
        (out / "mine").touch()
    else:
        out.symlink_to("nowhere")
    with pytest.raises(StorageError, match=re.escape(str(out))), AtomicDirectory(out):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_without_commit_nothing_is_left(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), AtomicDirectory(tmp_path / "out") as directory:
        _write_and_fail(directory, error)
    assert not list(tmp_path.iterdir())


def _write_and_fail(directory: AtomicDirectory, error: type[BaseException]) -> None:
    (directory.work / "a").write_bytes(b"1")
    raise error


def test_an_interrupt_right_after_it_is_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def interrupted(path: Path, mode: int) -> None:
        make(path, mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), AtomicDirectory(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_links_in_it_lead_to_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with AtomicDirectory(tmp_path / "out") as directory:
        (directory.work / "link").symlink_to(tmp_path / "mine")
        (directory.work / "below").mkdir()
        (directory.work / "below" / "link").symlink_to(tmp_path / "mine" / "file")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "file").exists()


def test_a_process_that_ends_at_once_removes_what_it_has_not_published(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "published") as file:
        file.write(b"1")
        file.commit()
    file = AtomicFile(tmp_path / "file").__enter__()
    directory = AtomicDirectory(tmp_path / "directory").__enter__()
    (directory.work / "a").write_bytes(b"1")
    assert len(list(tmp_path.iterdir())) == 3
    discard_all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["published"]
    file.abort()
