"""Every command that reads files of PyTorch calls one whose pickle is empty or cut malformed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import invoke
from tests.pth.attacks import GOOD, zip_of

BROKEN = {"empty": zip_of(b""), "cut": zip_of(GOOD[:-1])}
COMMANDS = [
    ["inspect", "{}"],
    ["inspect", "--tree", "{}"],
    ["inspect", "--stats", "{}"],
    ["inspect", "--pickle-imports", "{}"],
    ["diff", "{}", "{}"],
    ["diff", "--values", "{}", "{}"],
    ["verify", "{}"],
    ["verify", "--quick", "{}"],
    ["convert", "{}", "out.ckptfmt"],
    ["convert", "--strict", "--check", "{}", "out.ckptfmt"],
    ["convert", "{}", "out.npz"],
    ["export", "{}", "out.safetensors"],
    ["export", "{}", "out.pth"],
]


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_it_is_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], content: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(BROKEN[content])
    result = invoke(*[argument.format("a.pth") for argument in command])
    assert result.exit_code == 1
    assert "data.pkl" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("content", BROKEN)
def test_in_a_directory_it_is_no_checkpoint(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.pth").write_bytes(BROKEN[content])
    assert invoke("latest", tmp_path).exit_code != 0
    listed = json.loads(invoke("ls", "--json", tmp_path).output)
    assert "data.pkl" in json.dumps(listed)
    converted = invoke("convert", "--recursive", tmp_path, tmp_path / "new")
    assert converted.exit_code == 1
    assert not list(tmp_path.glob("new/*"))
