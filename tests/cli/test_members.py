"""`extract`, `pack` and `strip`: what they write, and which exit code they end with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ckptfmt
from tests.cli.conftest import NOW, invoke, state, usual_environment
from tests.ops.sparse import sparse_checkpoint


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a checkpoint in the working directory."""
    monkeypatch.chdir(tmp_path)
    ckptfmt.save(state(1), "a.ckptfmt", run_id="r", step=5, created=NOW, user={"host": "node7"})
    return "a.ckptfmt"


def test_out_and_back_again(path: str) -> None:
    result = invoke("extract", path, "-o", "out")
    assert (result.exit_code, result.stdout.split(":")[:1], result.stderr) == (0, ["out"], "")
    result = invoke("pack", "out", "-o", "b.ckptfmt")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("b.ckptfmt: 4 members, ")
    assert Path("b.ckptfmt").read_bytes() == Path(path).read_bytes()
    assert invoke("diff", path, "b.ckptfmt").exit_code == 0


def test_some_members_only(path: str) -> None:
    assert invoke("extract", path, "-o", "out", "--only", "net,epoch").exit_code == 0
    assert sorted(item.name for item in Path("out").iterdir()) == [
        *("+checkpoint.json", "epoch.msgpack", "net.safetensors"),
    ]
    result = invoke("extract", path, "-o", "other", "--only", "ema")
    assert result.exit_code == 1
    for name in ("'ema'", "net", "optimizer", "epoch"):
        assert name in result.stderr


def test_nothing_that_is_there_is_replaced_unasked(path: str) -> None:
    invoke("extract", path, "-o", "out")
    assert invoke("extract", path, "-o", "out").exit_code == 3
    assert invoke("pack", "out", "-o", path).exit_code == 2
    assert invoke("pack", "out", "-o", path, "--force").exit_code == 0
    assert invoke("strip", path, "--drop", "net", "-o", path).exit_code == 2
    assert invoke("strip", path, "--drop", "net", "-o", path, "--force").exit_code == 3


def test_a_file_that_is_not_valid_is_1(path: str) -> None:
    invoke("extract", path, "-o", "out")
    Path("out/net.safetensors").write_bytes(b"x")
    result = invoke("pack", "out", "-o", "b.ckptfmt")
    assert result.exit_code == 1
    assert "net.safetensors" in result.stderr
    assert not Path("b.ckptfmt").exists()
    assert invoke("pack", "missing", "-o", "b.ckptfmt").exit_code == 3


def test_a_checkpoint_for_publishing(path: str) -> None:
    result = invoke("strip", path, "--drop", "optimizer,epoch", "--no-notes", "-o", "small.ckptfmt")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("small.ckptfmt: ")
    with ckptfmt.open("small.ckptfmt") as checkpoint:
        assert list(checkpoint) == ["net"]
        assert checkpoint.metadata.user is None
    document = json.loads(invoke("inspect", "--json", "small.ckptfmt").stdout)
    assert document["state"]["resume"]["answer"] == "warm-start"
    document = json.loads(invoke("strip", path, "--keep", "net", "-o", "b.ckptfmt", "--json").stdout)
    assert (document["report"], document["kept"], document["dropped"]) == ("strip/1", ["net"], ["optimizer", "epoch"])


def test_names_are_separated_by_commas_or_the_option_is_repeated(path: str) -> None:
    for number, options in enumerate([["--drop", "net,epoch"], ["--drop", "net", "--drop", "epoch"]]):
        document = json.loads(invoke("strip", path, *options, "-o", f"{number}.ckptfmt", "--json").stdout)
        assert document["kept"] == ["optimizer"]


def test_the_notes_alone_can_be_left_out(path: str) -> None:
    assert invoke("strip", path, "--no-notes", "-o", "b.ckptfmt").exit_code == 0
    with ckptfmt.open("b.ckptfmt") as checkpoint:
        assert list(checkpoint) == ["net", "optimizer", "epoch"]
        assert checkpoint.metadata.user is None


@pytest.mark.parametrize(
    "options",
    [["--drop", "net"], ["-o", "b.ckptfmt"], ["-o", "b.ckptfmt", "--drop", "net", "--keep", "epoch"]],
    ids=["no target", "nothing to leave out", "drop and keep"],
)
def test_strip_refuses_what_makes_no_sense(path: str, options: list[str]) -> None:
    result = invoke("strip", path, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not Path("b.ckptfmt").exists()


def test_strip_names_a_component_that_is_not_there(path: str) -> None:
    result = invoke("strip", path, "--drop", "ema", "-o", "b.ckptfmt")
    assert result.exit_code == 1
    for name in ("'ema'", "net", "optimizer", "epoch"):
        assert name in result.stderr


def test_prune_of_a_file_names_strip(path: str) -> None:
    result = invoke("prune", path, "--keep-last", "1")
    assert result.exit_code == 2
    assert "ckptfmt strip" in result.stderr


def test_json(path: str) -> None:
    document = json.loads(invoke("extract", path, "-o", "out", "--json").stdout)
    assert (document["report"], document["directory"]) == ("extract/1", "out")
    document = json.loads(invoke("pack", "out", "-o", "b.ckptfmt", "--json").stdout)
    assert (document["report"], document["path"]) == ("pack/1", "b.ckptfmt")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
@pytest.mark.parametrize(
    "arguments",
    [["extract", "large.ckptfmt", "-o", "out"], ["strip", "large.ckptfmt", "--keep", "net", "-o", "small.ckptfmt"]],
)
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, arguments: list[str]) -> None:
    sparse_checkpoint(tmp_path / "large.ckptfmt", (2 << 30) // 4)
    command = [sys.executable, "-m", "ckptfmt_cli", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, env=usual_environment()
    ) as process:
        deadline = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        shown, talk = process.communicate(timeout=60)
    assert (process.returncode, shown, talk) == (130, "", "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["large.ckptfmt"]
