"""`inert=`: a person lets names past a refusal; what is made of them is data, and nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptfmt
from ckptfmt import Typed, UnsafeInputError
from ckptfmt._core.ops.conversion.pickle_imports import list_pickle_imports
from ckptfmt._core.pth.names.globals import Verdict
from ckptfmt._core.pth.reading import read_state
from ckptfmt._core.storage import open_source
from ckptfmt.errors import ForeignFileError
from tests.pth.attacks import call, command, global_of, stream_of, text, zip_of


def of(*entries: bytes) -> bytes:
    """A pickle of a dict with these values under `a`, `b`, ..."""
    items = b"".join(text(chr(ord("a") + number)) + entry for number, entry in enumerate(entries))
    return b"\x80\x02}(" + items + b"u."


def called(module: str, name: str, argument: str) -> bytes:
    return call(module, name, argument)[2:-1]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    path = tmp_path / "hostile.pth"
    run = command(tmp_path / "canary")
    path.write_bytes(zip_of(of(called("os", "system", run), called("numpy", "load", "x"), global_of("os", "remove"))))
    return path


NAMES = ("os.system", "numpy.load", "os.remove")


def test_what_is_let_past_is_data(hostile: Path, tmp_path: Path) -> None:
    report = ckptfmt.convert(hostile, tmp_path / "out.ckptfmt", inert=NAMES, strict=True, check=True)
    assert ckptfmt.load(tmp_path / "out.ckptfmt") == {
        "a": Typed("os.system", {"args": [command(tmp_path / "canary")]}),
        "b": Typed("numpy.load", {"args": ["x"]}),
        "c": Typed("python.name", "os.remove"),
    }
    assert report.findings.inert == dict.fromkeys(NAMES, 1)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("missing", NAMES)
def test_every_other_name_is_refused_as_before(hostile: Path, tmp_path: Path, missing: str) -> None:
    with pytest.raises(UnsafeInputError, match=missing):
        ckptfmt.convert(hostile, tmp_path / "out.ckptfmt", inert=[name for name in NAMES if name != missing])
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.pth"]


def test_the_error_says_how(hostile: Path) -> None:
    with open_source(hostile) as source, pytest.raises(UnsafeInputError, match=r"inert=.*--inert"):
        read_state(source)
    with open_source(hostile) as source:
        assert set(read_state(source, inert=NAMES).notes.inert) == set(NAMES)


def test_they_are_listed_as_inert(hostile: Path) -> None:
    assert not list_pickle_imports(hostile).safe
    report = list_pickle_imports(hostile, inert=NAMES)
    assert report.safe
    assert {(use.name, use.verdict) for use in report.audit.names} == {(name, Verdict.INERT) for name in NAMES}


def test_a_class_of_another_package_passes_strict_reading(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(stream_of(slots={3: of(called("package.config", "Config", "x"))}))
    with pytest.raises(UnsafeInputError, match=r"package\.config\.Config"):
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", strict=True)
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", strict=True, inert=["package.config.Config"])
    assert ckptfmt.load(tmp_path / "a.ckptfmt") == {"a": Typed("package.config.Config", {"args": ["x"]})}


def test_a_call_of_what_another_call_returns(tmp_path: Path) -> None:
    content = b"\x80\x02cpackage\nfactory\n)R" + text("x") + b"\x85R."
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UnsafeInputError, match=r"package\.factory"):
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", inert=["package.factory"])
    assert ckptfmt.load(tmp_path / "a.ckptfmt") == Typed("package.factory()", {"args": ["x"]})


def test_what_changes_a_class(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x80\x02cpackage\nConfig\n}" + text("width") + b"K\x03sb.")
    with pytest.raises(UnsafeInputError, match=r"package\.Config"):
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", inert=["package.Config"])
    assert ckptfmt.load(tmp_path / "a.ckptfmt") == Typed("package.Config", {"width": 3})


def test_a_function_that_is_folded_elsewhere(tmp_path: Path) -> None:
    called_ = b"\x80\x02cbuiltins\ngetattr\ncpackage\nConfig\n)R" + text("method") + b"\x86R."
    (tmp_path / "a.pth").write_bytes(called_)
    with pytest.raises(UnsafeInputError, match=r"builtins\.getattr"):
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", inert=["builtins.getattr"])
    found = ckptfmt.load(tmp_path / "a.ckptfmt")
    assert found == Typed("builtins.getattr", {"args": [Typed("package.Config", {}), "method"]})


@pytest.mark.parametrize("name", ["numpy.float32", "torch.FloatStorage", "builtins.type"])
def test_known_names_in_forms_that_are_not(tmp_path: Path, name: str) -> None:
    module, _, word = name.rpartition(".")
    (tmp_path / "a.pth").write_bytes(of(called(module, word, "x")))
    with pytest.raises(UnsafeInputError, match=name):
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", inert=[name])
    assert ckptfmt.load(tmp_path / "a.ckptfmt") == {"a": Typed(name, {"args": ["x"]})}


def test_a_partial_function_of_nothing_is_malformed_even_so(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(of(b"cfunctools\npartial\n)R"))
    with pytest.raises(ForeignFileError, match="partial"):
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", inert=["functools.partial"])
