"""After a power cut at any moment: what was said to be durable is there, and whatever is there is whole."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.breaking.crash_states import SCENARIOS, SPOILS, look
from tests.breaking.disk import Disk, Operation, Tree, fingerprint
from tests.breaking.injection import compiler

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler is installed to build the recorder")

slow = pytest.mark.slow
QUICK = [pytest.param(name, marks=slow if name == "large" else ()) for name in SCENARIOS]
NOTICED = [
    pytest.param(spoil, name, marks=slow if name in ("training", "large") else ())
    for spoil in SPOILS
    for name in SCENARIOS
    if (spoil, name) != ("files", "pins")  # which writes no file
]


@needs_compiler
@pytest.mark.parametrize("name", QUICK)
def test_what_was_said_to_be_durable_is_there_and_all_that_is_there_is_whole(name: str, tmp_path: Path) -> None:
    found = look(name, tmp_path)
    assert found.broken == ()
    assert found.marks >= 2
    assert found.states >= found.operations


@needs_compiler
@pytest.mark.parametrize(("spoil", "name"), NOTICED)
def test_a_flush_that_is_left_out_is_noticed(spoil: str, name: str, tmp_path: Path) -> None:
    assert look(name, tmp_path, spoil).broken


# The disk itself.


class Record:
    """Says what is done, in the words of the recorder, and applies it to a disk."""

    def __init__(self, root: Path) -> None:
        self.disk = Disk(root)
        self.root = root

    def __call__(self, word: str, *arguments: str | int | Path | bytes) -> None:
        def written(argument: str | int | Path | bytes) -> str:
            if isinstance(argument, int):
                return str(argument)
            if isinstance(argument, str):
                argument = self.root / argument
            return (argument if isinstance(argument, bytes) else os.fsencode(argument)).hex()

        self.disk.apply(Operation(word, tuple(map(written, arguments))))

    def states(self) -> list[Tree]:
        found = {fingerprint(tree): tree for tree in self.disk.states(random.Random(0), 50)}
        return list(found.values())


@pytest.fixture
def record(tmp_path: Path) -> Record:
    (tmp_path / "old").write_bytes(b"old")
    return Record(tmp_path)


@pytest.fixture
def root_inode(tmp_path: Path) -> int:
    return tmp_path.stat().st_ino


def test_what_was_there_stays(record: Record) -> None:
    assert record.states() == [{"old": b"old"}]


def test_neither_name_nor_content_is_sure_before_it_is_flushed(record: Record, root_inode: int) -> None:
    record("create", 1001, "new")
    record("write", 1001, 0, b"ab")
    found = {repr(tree.get("new")) for tree in record.states()}
    assert found == {"None", "b''", "b'ab'", "b'\\x00\\x00'", "b'a\\x00'"}
    record("flush", 1001)
    assert {repr(tree.get("new")) for tree in record.states()} == {"None", "b'ab'"}
    record("flush", root_inode)
    assert record.states() == [{"old": b"old", "new": b"ab"}]


def test_a_flush_of_the_directory_alone_keeps_the_name_alone(record: Record, root_inode: int) -> None:
    record("create", 1001, "new")
    record("write", 1001, 0, b"ab")
    record("flush", root_inode)
    assert all("new" in tree for tree in record.states())
    assert any(tree["new"] == b"" for tree in record.states())


def test_a_renaming_is_not_torn_and_may_come_before_what_was_done_before(record: Record) -> None:
    record("create", 1001, "temporary")
    record("flush", 1001)
    record("rename", "temporary", "old")
    expected = ({"old": b"old"}, {"old": b"old", "temporary": b""}, {"old": b""})
    assert sorted(map(repr, record.states())) == sorted(map(repr, expected))


def test_what_is_in_a_directory_goes_with_it(record: Record, root_inode: int) -> None:
    record("mkdir", 1001, "run")
    record("create", 1002, "run/new")
    record("flush", 1002)
    record("flush", 1001)
    assert {repr(tree.get("run")) for tree in record.states()} == {"None", "{'new': b''}"}
    record("flush", root_inode)
    assert record.states() == [{"old": b"old", "run": {"new": b""}}]


def test_an_inode_that_is_used_again_is_another_file(record: Record, root_inode: int, tmp_path: Path) -> None:
    inode = (tmp_path / "old").stat().st_ino
    record("remove", "old")
    record("create", inode, "new")
    record("write", inode, 0, b"new")
    record("flush", inode)
    assert all(tree.get("old", b"old") == b"old" for tree in record.states())
    assert any(tree == {"old": b"old", "new": b"new"} for tree in record.states())


def test_a_flush_of_everything_leaves_one_state(record: Record) -> None:
    record("mkdir", 1001, "run")
    record("create", 1002, "run/new")
    record("write", 1002, 2, b"b")
    record("resize", 1002, 4)
    record("link", "run/new", "run/again")
    record("flush-all", 1002)
    assert record.states() == [{"old": b"old", "run": {"new": b"\0\0b\0", "again": b"\0\0b\0"}}]
