"""The exceptions are what the drawing in `ckptfmt.errors` shows, and their exit codes hold wherever they go."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptfmt
import ckptfmt.torch
from ckptfmt import errors
from ckptfmt._core.training.saving.leaving import LEAVE_EXIT_CODE
from ckptfmt.errors import CkptfmtError, Problem, SkippedFile
from ckptfmt_cli.main import INTERRUPTED, READER_GONE

EVERY = {
    "FormatError": errors.FormatError(Problem("chunk-digest", "a byte has changed", tensor="w"), "a.ckptfmt"),
    "TruncatedError": errors.TruncatedError([Problem("too-short", "3 bytes")], "a.ckptfmt"),
    "LimitError": errors.LimitError(Problem("limit-index", "too large")),
    "UnsupportedVersionError": errors.UnsupportedVersionError(Problem("major-version", "version 9")),
    "IntegrityError": errors.IntegrityError(Problem("padding", "not zero", offset=3)),
    "ForeignFileError": errors.ForeignFileError("cut short", "a.pth", ".pth"),
    "UnsupportedFileError": errors.UnsupportedFileError("too large"),
    "UnsafeInputError": errors.UnsafeInputError("os.system", "more"),
    "NotFoundError": errors.NotFoundError("no tensor 'w'"),
    "MismatchError": errors.MismatchError("does not fit", ["net.w: missing"]),
    "StateError": errors.StateError("net.w", "a lock", "leave it out"),
    "ExportError": errors.ExportError("no"),
    "PackError": errors.PackError("no"),
    "UsageError": errors.UsageError("no"),
    "StorageError": errors.StorageError("a.ckptfmt: gone"),
    "ReadError": errors.ReadError("a.ckptfmt: I/O error"),
    "ChangedError": errors.ChangedError("a.ckptfmt: replaced"),
    "LockedError": errors.LockedError("held"),
    "LeaseError": errors.LeaseError("none"),
    "MissingExtraError": errors.MissingExtraError("torch", "ckptfmt.torch"),
    "RankError": errors.RankError("rank 1"),
    "SaveError": errors.SaveError("step 3"),
    "RestoreError": errors.RestoreError("net", "a.ckptfmt", "net", ["net"]),
    "ResumeError": errors.ResumeError("none", [SkippedFile("a", "damaged")], details=["b"]),
    "UndecidedError": errors.UndecidedError("unknown", [SkippedFile("a", "no permission")]),
    "HeldError": errors.HeldError("held", "node7", 12, details=["since"]),
    "SupersededError": errors.SupersededError("taken over", details=["by node8"]),
}


def below(kind: type[CkptfmtError]) -> Iterator[type[CkptfmtError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def test_the_drawing_shows_every_exception_in_its_place_with_its_bases_and_exit_code() -> None:
    drawn: dict[str, tuple[str, int]] = {}
    above = {-1: ("CkptfmtError", CkptfmtError.exit_code)}
    pattern = re.compile(r"^([│ ]*)[├└]── (\w+)(?: \((\w+)\))? +(\d+)?", re.MULTILINE)
    for indent, name, builtin, code in pattern.findall(errors.__doc__ or ""):
        depth = len(indent) // 4
        parent, inherited = above[depth - 1]
        above[depth] = (name, int(code or inherited))
        drawn[name] = (f"{parent}, {builtin}" if builtin else parent, above[depth][1])
    found = {kind.__name__: (", ".join(base.__name__ for base in kind.__bases__), kind.exit_code) for kind in kinds()}
    assert drawn == found


def test_the_page_of_exit_codes_has_the_codes_of_all_exceptions() -> None:
    page = (Path(__file__).parent.parent / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert {kind.exit_code for kind in kinds()} | {LEAVE_EXIT_CODE, INTERRUPTED, READER_GONE} <= codes


def kinds() -> set[type[CkptfmtError]]:
    for package in (ckptfmt, ckptfmt.torch):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    return set(below(CkptfmtError))


def test_every_exception_is_public() -> None:
    names = {kind.__name__ for kind in kinds()}
    assert names <= set(errors.__all__)
    assert names <= set(ckptfmt.__all__)
    assert {kind.__module__ for kind in kinds()} == {"ckptfmt.errors"}
    assert set(EVERY) == names


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_an_exception_comes_back_whole_from_another_process(name: str, again: object) -> None:
    assert callable(again)
    error = EVERY[name]
    error.add_note("a note")
    other = again(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert getattr(other, "code", None) == getattr(error, "code", None)


@pytest.mark.parametrize(("name", "code"), [("UndecidedError", 78), ("HeldError", 78), ("SupersededError", 73)])
def test_uncaught_it_ends_the_process_with_its_exit_code(name: str, code: int, tmp_path: Path) -> None:
    path = tmp_path / "error.pickle"
    path.write_bytes(pickle.dumps(EVERY[name]))
    program = "import pickle, sys; raise pickle.load(open(sys.argv[1], 'rb'))"
    assert subprocess.run([sys.executable, "-c", program, path], check=False, capture_output=True).returncode == code
