"""Hostile files run nothing, write nothing, and are refused with the name of what they ask for."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import ckptfmt
from ckptfmt.errors import CkptfmtError, ForeignFileError, UnsafeInputError, UnsupportedFileError
from tests.pth import attacks

CANARY = Path(tempfile.gettempdir()) / "ckptfmt-canary"
CASES = attacks.attacks(CANARY)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_it_is_refused_and_nothing_is_written(case: attacks.Attack, tmp_path: Path) -> None:
    source, target = tmp_path / "hostile.pth", tmp_path / "out.ckptfmt"
    source.write_bytes(case.content)
    with pytest.raises(UnsafeInputError) as caught:
        ckptfmt.convert(source, target)
    assert case.named in str(caught.value)
    assert str(source) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.pth"]
    assert not CANARY.exists()


def test_the_payloads_would_act(tmp_path: Path) -> None:
    """Unpickle the plainest ones for real, or the canary would prove nothing."""
    canary = tmp_path / "canary"
    acted = 0
    for name, content in attacks.opcodes(canary):
        if "state" in name or "getattr" in name or "never" in name or "second" in name or "third" in name:
            continue
        if "Popen" in repr(content):
            continue
        code = "import pickle, sys\ntry: pickle.loads(sys.stdin.buffer.read())\nexcept Exception: pass"
        subprocess.run([sys.executable, "-c", code], input=content, check=True, timeout=30)
        assert canary.exists(), name
        canary.unlink()
        acted += 1
    assert acted > 15


WATCHED = """
import sys
from pathlib import Path
from tests.pth import attacks
import ckptfmt
from ckptfmt._core.ops.conversion import convert
from ckptfmt._core.interop.readers import pth
from ckptfmt._core.interop.readers import npz
from ckptfmt._core.interop.readers import zip_archives as zips
from ckptfmt._core.interop.huggingface import directory as directories
from ckptfmt._core.ops.inspection import arrays
from ckptfmt._core.pth.data import gathering
from ckptfmt._core.container.writer import write_file
import concurrent.futures.thread

directory = Path(sys.argv[1])
cases = attacks.attacks(directory / "canary")
allowed = {"open", "os.listdir", "os.scandir", "pathlib.Path.glob"}
seen = set()
def watch(event, arguments):
    if armed and event in ("import", "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
                           "pickle.find_class", "marshal.loads", "socket.connect", "ctypes.dlopen", "code.__new__"):
        seen.add((event, str(arguments[0])[:60]))
armed = False
sys.addaudithook(watch)
for case in cases:
    source = directory / "hostile.pth"
    source.write_bytes(case.content)
    try:
        armed = True
        ckptfmt.convert(source, directory / "out")
    except ckptfmt.UnsafeInputError:
        pass
    finally:
        armed = False
print(sorted(seen))
"""


def test_nothing_is_imported_compiled_or_started(tmp_path: Path) -> None:
    """The interpreter itself reports imports, code, processes and unpickling: there are none."""
    # The first refusal may import modules of ours; after that there is nothing left to import.
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "kind", "named"),
    [
        (b"", ForeignFileError, "broken.pth"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), ForeignFileError, "7z"),
        (b"\x1f\x8b" + bytes(100), ForeignFileError, "gzip"),
        (b"Rar!\x1a\x07" + bytes(100), ForeignFileError, "RAR"),
        (b"\xfd7zXZ\x00" + bytes(100), ForeignFileError, "xz"),
        (b"\x93NUMPY" + bytes(100), ForeignFileError, "NumPy"),
        (b"<!DOCTYPE html>" + bytes(100), ForeignFileError, "broken.pth"),
        (b"version https://git-lfs.github.com/spec/v1\n", ForeignFileError, "Git LFS"),
        (b"PK\x03\x04" + bytes(200), ForeignFileError, "zip"),
        (attacks.zip_of(attacks.GOOD)[:-1], ForeignFileError, "zip"),
        (attacks.zip_of(attacks.GOOD) + b"x", ForeignFileError, "zip"),
        (attacks.zip_of(attacks.GOOD, {"data.pkl ": b""}, root="a/b"), ForeignFileError, "data.pkl"),
        (attacks.stream_of()[:-3], ForeignFileError, "byte 133"),
        (attacks.tar_of(attacks.TAR_PARTS) + attacks.zip_of(attacks.GOOD), ForeignFileError, "byte 10240"),
        (attacks.stream_of(tail=b"junk that is none"), ForeignFileError, "17 bytes"),
        (attacks.zip_of(attacks.GOOD + b"junk"), ForeignFileError, "data.pkl"),
        (pickle.dumps(2**70000), UnsupportedFileError, "8751"),
        (b"\x80\x09.", UnsupportedFileError, "protocol 9"),
        (b"\x80\x02cbuiltins\nlist\ncbuiltins\nrange\nK\x05\x85R\x85R.", UnsupportedFileError, "list"),
        (b"\x80\x02ccollections\nOrderedDict\nca\nB\n)R\x85R.", UnsupportedFileError, "dict"),
        (
            attacks.zip_of(
                b"\x80\x02((X\x07\x00\x00\x00storagectorch\nByteStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\xff\xff\xff\xfftQt."
            ),
            UnsupportedFileError,
            "pickle",
        ),
        (b"]" * 10 + b"\x82\x01.", UnsafeInputError, "extension code 1"),
    ],
)
def test_what_is_broken_is_one_clear_error(
    tmp_path: Path, content: bytes, kind: type[CkptfmtError], named: str
) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(kind) as caught:
        ckptfmt.convert(path, tmp_path / "out.ckptfmt")
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert [child.name for child in tmp_path.iterdir()] == ["broken.pth"]
