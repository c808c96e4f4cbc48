"""No name that others chose can steer the terminal of whoever reads our texts (errors, reports, notices)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt._core.runs.scan import reason
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._escaping import escape
from ckptfmt.errors import (
    CkptfmtError,
    ExportError,
    ForeignFileError,
    LockedError,
    MismatchError,
    NotFoundError,
    PackError,
    Problem,
    ResumeError,
    SkippedFile,
    StateError,
    SupersededError,
    UndecidedError,
    UsageError,
    error_for,
)
from tests.hostile_names import HOSTILE, is_harmless


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[2J", "\\x1b[2J"),  # clears a screen
        ("a\nok b", "a\\nok b"),  # forges a line
        ("a\rb", "a\\rb"),
        ("a\x08\x7fb", "a\\x08\\x7fb"),
        ("\x9b31m", "\\x9b31m"),  # the one-byte CSI
        ("\u202eexe\u2066", "\\u202eexe\\u2066"),  # turn the direction of writing
        ("\u2028", "\\u2028"),
        ("a\u200bb\u200d\ufeffc", "a\\u200bb\\u200d\\ufeffc"),  # without width
        ("a\u3164\ufe0f\U000e0100\u2800", "a\\u3164\\ufe0f\\U000e0100\\u2800"),  # of which nothing is seen
        ("\udcff", "\\udcff"),  # a byte of a file name that is not text
        ("h.0.attn.größe 重み e\u0301", "h.0.attn.größe 重み e\u0301"),
    ],
)
def test_what_steers_a_terminal_or_is_not_seen_is_escaped(hostile: str, harmless: str) -> None:
    assert escape(hostile) == harmless


@given(st.text())
def test_escaped_text_is_printable_and_stays_when_it_is_escaped_again(text: str) -> None:
    assert escape(text).isprintable()
    assert escape(escape(text)) == escape(text)
    escape(text).encode()  # every stream that speaks Unicode takes it


@given(st.text(st.characters(max_codepoint=0x2AF, exclude_categories=["C", "Z"])))
def test_ordinary_text_stays(text: str) -> None:
    assert escape(text) == text


ERRORS: dict[str, Callable[[str], CkptfmtError]] = {
    "base": CkptfmtError,
    "format": lambda name: error_for(Problem("chunk-digest", name, member=name, tensor=name), name),
    "state": lambda name: StateError(name, name, name),
    "not found": NotFoundError,
    "mismatch": lambda name: MismatchError(name, [name, name]),
    "storage": lambda name: storage_error(name, name, OSError(errno.EIO, name), name),
    "locked": LockedError,
    "foreign": lambda name: ForeignFileError(name, name, name).inside(name),
    "pack": PackError,
    "export": ExportError,
    "policy": UsageError,
    "usage": UsageError,
    "resume": lambda name: ResumeError(name, [SkippedFile(name, name)], details=[name]),
    "undecided": lambda name: UndecidedError(name, [SkippedFile(name, name)]),
    "superseded": SupersededError,
}


def classes(base: type[CkptfmtError]) -> set[type[CkptfmtError]]:
    return {base}.union(*map(classes, base.__subclasses__()))


@pytest.mark.parametrize("kind", ERRORS)
def test_the_text_of_every_error_is_harmless(kind: str) -> None:
    error = ERRORS[kind](HOSTILE)
    assert is_harmless(str(error))
    assert escape(HOSTILE) in str(error)


def test_no_class_of_error_makes_its_text_by_itself() -> None:
    own = {kind for kind in classes(CkptfmtError) if "__str__" in vars(kind)}
    assert own == {CkptfmtError}


def test_the_lines_of_an_error_stay_lines() -> None:
    text = str(MismatchError("it does not fit", ["a\nb: 1", "c: 2"]))
    assert text == "it does not fit:\n  a\\nb: 1\n  c: 2"
    assert str(ResumeError("none", [SkippedFile("a\n.ckptfmt", "cut")])) == "none\n  a\\n.ckptfmt: cut"
    assert str(NotFoundError("no 'a'")) == "no 'a'"


def test_a_problem_of_a_file_is_harmless() -> None:
    assert is_harmless(str(Problem("chunk-digest", HOSTILE, member=HOSTILE, tensor=HOSTILE)))


def test_the_reason_leaves_out_a_path_that_had_to_be_escaped() -> None:
    path = os.fsdecode(b"/runs/\x1b\xff.ckptfmt")
    assert reason(storage_error(path, "cannot be opened", OSError(errno.EIO, "")), path).startswith("cannot be opened")
