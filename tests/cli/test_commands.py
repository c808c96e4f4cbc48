"""What the commands say and which exit code they end with."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from pathlib import Path

import click
import pytest

from ckptfmt import __version__
from ckptfmt._core.ops.progress import Progress
from ckptfmt_cli import main as command_line
from tests.cli.conftest import RUN, invoke

COMMANDS = list(command_line._COMMANDS)


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"ckptfmt {__version__}\n")


def test_help_lists_every_command_with_its_own_summary() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        command = importlib.import_module(f"ckptfmt_cli.commands.{name}").command
        assert isinstance(command, click.Command)
        (line,) = [line for line in result.stdout.splitlines() if line.split()[:1] == [name]]
        assert line.split(maxsplit=1)[1] == command.short_help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page_of_help_with_examples(name: str) -> None:
    result = invoke(name, "-h")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"  ckptfmt {name} " in result.stdout or f" ckptfmt {name} " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("arguments", [["inspect"], ["verify"], ["frobnicate"], ["inspect", "--frobnicate", "a"]])
def test_wrong_usage_is_2_and_points_to_help(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "--help" in result.stderr


def test_inspect_shows_facts_components_and_tensors(run_directory: Path) -> None:
    result = invoke("inspect", run_directory / "ckpt_15.ckptfmt")
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (RUN, "1500", "val_loss 0.33333", "optimizer", "conv.weight", "[3, 16]", "192 B"):
        assert text in result.stdout


def test_inspect_json_is_the_report(run_directory: Path) -> None:
    result = invoke("inspect", "--json", run_directory / "ckpt_15.ckptfmt")
    document = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert document["report"] == "inspect/1"
    assert document["metadata"]["run_id"] == RUN
    assert [tensor["name"] for tensor in document["tensors"]] == ["conv.weight", "conv.bias", "state.0.exp_avg"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\x89CKPTFMT\r\n\x1a\n" + bytes(1000), "trailer-magic"),
        (b"hello", "magic"),
        (b"", "too-short"),
    ],
)
def test_inspect_of_no_checkpoint_names_the_file_and_the_problem(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "a.ckptfmt"
    path.write_bytes(content)
    result = invoke("inspect", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"ckptfmt: {path}: ")
    assert result.stderr.count("\n") == 1
    assert f"[{code}]" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "verify", "ls"])
def test_a_missing_path_is_3(tmp_path: Path, command: str) -> None:
    result = invoke(command, tmp_path / "missing")
    assert result.exit_code == 3
    assert str(tmp_path / "missing") in result.stdout + result.stderr


def test_a_directory_is_no_checkpoint(tmp_path: Path) -> None:
    result = invoke("inspect", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(tmp_path) in result.stderr


def test_of_a_directory_of_checkpoints_one_has_to_be_named(run_directory: Path) -> None:
    result = invoke("inspect", run_directory)
    assert result.exit_code == 3
    assert f"ckptfmt latest {run_directory}" in result.stderr


@pytest.mark.parametrize("exists", [True, False])
def test_a_message_cannot_forge_a_line(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "a\x1b[2J\nckptfmt: all is well"
    if exists:
        path.write_bytes(b"no checkpoint")
    result = invoke("inspect", path)
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_verify_names_the_damaged_tensor_on_the_line_of_its_file(run_directory: Path) -> None:
    result = invoke("verify", run_directory)
    assert result.exit_code == 1
    *files, total = result.stdout.splitlines()
    lines = dict(line.split(": ", 1) for line in files)
    assert {Path(name).name for name in lines} == {"flipped.ckptfmt", "cut.ckptfmt"}
    assert "net conv.weight" in lines[str(run_directory / "flipped.ckptfmt")]
    assert "[trailer-magic]" in lines[str(run_directory / "cut.ckptfmt")]
    assert "3 ok" in total


def test_verify_names_sound_files_on_request(run_directory: Path) -> None:
    *files, total = invoke("verify", "--all", run_directory).stdout.splitlines()
    sound = {Path(line.removesuffix(": ok")).name for line in files if line.endswith(": ok")}
    assert sound == {"ckpt_5.ckptfmt", "ckpt_10.ckptfmt", "ckpt_15.ckptfmt"}
    assert "3 ok" in total


def test_verify_of_sound_files_is_0_and_of_one_says_one_line(run_directory: Path) -> None:
    path = run_directory / "ckpt_5.ckptfmt"
    result = invoke("verify", path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}: ok\n", "")


def test_the_line_of_progress_makes_room_for_each_result(monkeypatch: pytest.MonkeyPatch, run_directory: Path) -> None:
    class Recorder:
        def update(self, progress: Progress) -> None:
            sys.stdout.write("progress ")

        def hide(self) -> None:
            sys.stdout.write("hidden ")

    monkeypatch.setattr("ckptfmt_cli.commands.verify.progress_line", lambda: contextlib.nullcontext(Recorder()))
    path = run_directory / "ckpt_5.ckptfmt"
    assert re.fullmatch(rf"(progress )+hidden {re.escape(str(path))}: ok\n", invoke("verify", path).stdout)


def test_verify_json(run_directory: Path) -> None:
    result = invoke("verify", "--json", run_directory, run_directory / "missing")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["report"] == "verify/1"
    assert document["counts"]["sound"] == 3
    assert document["counts"]["unreadable"] == 1
    verdicts = {Path(file["path"]).name: file["verdict"] for file in document["files"]}
    assert (verdicts["flipped.ckptfmt"], verdicts["cut.ckptfmt"]) == ("damaged", "truncated")


def test_verify_is_sure_of_no_even_if_another_file_cannot_be_read(run_directory: Path) -> None:
    assert invoke("verify", run_directory / "flipped.ckptfmt", run_directory / "missing").exit_code == 1
    assert invoke("verify", run_directory / "ckpt_5.ckptfmt", run_directory / "missing").exit_code == 3


def test_verify_of_a_directory_without_checkpoints_is_1(tmp_path: Path) -> None:
    result = invoke("verify", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(tmp_path) in result.stderr


def test_ls_lists_in_the_order_of_the_training_and_marks_the_bad(run_directory: Path) -> None:
    result = invoke("ls", run_directory)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    names = [line.split()[-1] for line in lines if ".ckptfmt" in line]
    assert names == [
        "ckpt_5.ckptfmt",
        "ckpt_10.ckptfmt",
        "ckpt_15.ckptfmt",
        "flipped.ckptfmt",  # its data are damaged, which only verify sees
        ".ckpt_20.ckptfmt.0123abcd-0123456789abcdef.tmp",
        "cut.ckptfmt",
    ]
    assert [line.split()[0] for line in lines if ".ckptfmt" in line][-2:] == ["incomplete", "incomplete"]
    assert "ckptfmt verify" in lines[-1]


def test_ls_is_of_the_working_directory_unless_told(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_directory)
    assert "ckpt_5.ckptfmt" in invoke("ls").stdout


def test_ls_json(run_directory: Path) -> None:
    result = invoke("ls", "--json", run_directory)
    document = json.loads(result.stdout)
    assert document["counts"] == {"ok": 4, "incomplete": 2, "damaged": 0, "unreadable": 0}
    assert document["entries"][0]["metadata"]["metrics"] == {"val_loss": 1.0}


def test_ls_of_nothing_is_1(tmp_path: Path) -> None:
    result = invoke("ls", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(tmp_path) in result.stderr
    assert json.loads(invoke("ls", "--json", tmp_path).stdout)["entries"] == []


def test_json_is_ascii_whatever_the_names(tmp_path: Path) -> None:
    path = tmp_path / "g\x7fr\u00f6\u202e.ckptfmt"
    path.write_bytes(b"")
    text = invoke("ls", "--json", tmp_path).stdout
    assert text.isascii()
    assert "\x7f" not in text
    assert json.loads(text)["entries"][0]["name"] == path.name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert f"_CKPTFMT_COMPLETE={shell}_complete" in result.stdout


def test_the_shell_gets_its_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_CKPTFMT_COMPLETE": "bash_complete", "COMP_WORDS": "ckptfmt in", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    result = invoke()
    assert (result.exit_code, result.stdout) == (0, "plain,inspect\n")


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, run_directory: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ckptfmt_cli.commands.verify.select_files", interrupted)
    result = invoke("verify", run_directory)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")
