"""`--inert NAME` of every command that reads files of PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import invoke
from tests.pth.attacks import call, text, zip_of

INERT = ["--inert", "os.system", "--inert", "os.popen"]
ONE_FILE = [
    ["inspect", "a.pth"],
    ["inspect", "--pickle-imports", "a.pth"],
    ["inspect", "--json", "a.pth"],
    ["diff", "a.pth", "a.pth"],
    ["convert", "a.pth", "out.ckptfmt"],
    ["convert", "--strict", "--check", "a.pth", "out.ckptfmt"],
    ["convert", "--check", "a.pth", "out.pth"],
    ["export", "--check", "a.pth", "out.pth"],
    ["convert", "--recursive", ".", "new"],
    ["ls", "."],
    ["latest", "."],
    ["latest", "--verify", "."],
    ["plot", ".", "-o", "out.svg"],
]


@pytest.fixture(autouse=True)
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of an epoch and a metric, beside what would run commands."""
    monkeypatch.chdir(tmp_path)
    calls = [call("os", name, "touch canary")[2:-1] for name in ("system", "popen")]
    entries = dict(zip("ab", calls, strict=True)) | {"net": b"}", "epoch": b"K\x03", "val_loss": b"G?\xe0" + bytes(6)}
    items = b"".join(text(key) + entry for key, entry in entries.items())
    (tmp_path / "a.pth").write_bytes(zip_of(b"\x80\x02}(" + items + b"u."))


@pytest.mark.parametrize("arguments", ONE_FILE, ids=" ".join)
def test_the_file_is_taken(tmp_path: Path, arguments: list[str]) -> None:
    assert "os.system" in invoke(*arguments).output
    done = invoke(*arguments, *INERT)
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("arguments", [["verify", "a.pth"], ["verify", "--quick", "a.pth"]], ids=" ".join)
def test_verify_reads_it_whole(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 1
    assert invoke(*arguments, *INERT).exit_code == 3  # whole, and nothing tells whether it is as it was written


def test_prune_counts_it(tmp_path: Path) -> None:
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    prune = ["prune", "--keep-last", "1", "--no-run", "--yes", "."]
    assert invoke(*prune).exit_code == 0
    assert len(list(tmp_path.glob("*.pth"))) == 2, "files that are refused are left alone"
    assert invoke(*prune, *INERT).exit_code == 0
    assert len(list(tmp_path.glob("*.pth"))) == 1
