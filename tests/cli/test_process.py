"""What only a process of its own can show: streams, signals, terminals, and what is imported."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt_cli.text import cells
from tests.cli.conftest import Ckptfmt, usual_environment
from tests.ops.sparse import sparse_checkpoint

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals and signals")

_REPORT_IMPORTS = """
import json, sys
from ckptfmt_cli.main import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as stop:
    print(json.dumps([stop.code, sorted(sys.modules)]), file=sys.stderr)
"""


def imported_by(*arguments: str | Path) -> set[str]:
    command = [sys.executable, "-c", _REPORT_IMPORTS, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    code, modules = json.loads(done.stderr)
    assert code == 0
    return set(modules)


def test_help_loads_no_command_and_no_heavy_library() -> None:
    modules = imported_by("--help")
    assert not modules & {"numpy", "torch", "rich", "zstandard"}
    assert not {name for name in modules if name.startswith(("ckptfmt_cli.commands.", "ckptfmt._core.ops."))}


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_inspect_and_ls_load_no_heavy_library(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"net": {"w": np.zeros(100)}}, path, codec=codec)
    heavy = {"numpy", "torch", "rich", "zstandard"}
    assert not imported_by("inspect", path) & heavy
    assert not imported_by("inspect", "--json", path) & heavy
    assert not imported_by("ls", tmp_path) & heavy


def test_verify_loads_no_numpy_and_no_rich_for_a_short_check(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"net": {"w": np.zeros(100)}}, path)
    assert not imported_by("verify", path) & {"numpy", "torch", "rich"}


def test_results_are_on_stdout_and_talk_is_on_stderr(run: Ckptfmt, run_directory: Path) -> None:
    good, bad = str(run_directory / "ckpt_5.ckptfmt"), str(run_directory / "cut.ckptfmt")
    shown = run("inspect", good)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "conv.weight" in shown.stdout
    refused = run("inspect", bad)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"net": {f"layer.{number}.weight": np.zeros(1) for number in range(3000)}}, path)
    command = [sys.executable, "-m", "ckptfmt_cli", "inspect", "--all", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=usual_environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == f"{path}\n"
        process.stdout.close()
        talk = process.stderr.read()
    assert (process.returncode, talk) == (141, "")


@posix
def test_with_both_streams_closed_the_exit_code_still_answers(run_directory: Path) -> None:
    for name, code in [("ckpt_5", 0), ("flipped", 1), ("missing", 3)]:
        command = [sys.executable, "-m", "ckptfmt_cli", "verify", str(run_directory / f"{name}.ckptfmt")]
        closing = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]
        assert subprocess.run(closing, check=False, env=usual_environment()).returncode == code


@posix
@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "run/ckpt_5.ckptfmt"], ["ls", "--json", "run"]])
def test_a_reader_that_is_gone_from_the_start_is_no_error(
    run: Ckptfmt, run_directory: Path, arguments: list[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(*arguments, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_behind_a_redirection_is_one_clear_line(run: Ckptfmt, run_directory: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("inspect", str(run_directory / "ckpt_5.ckptfmt"), stdout=full)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert os.strerror(errno.ENOSPC) in done.stderr


@posix
def test_a_name_that_the_locale_cannot_spell_is_no_error(run: Ckptfmt, tmp_path: Path) -> None:
    path = tmp_path / "重み.ckptfmt"
    ckptfmt.save({"net": {"größe": np.zeros(1), "w" * 200: np.zeros(1)}}, path)
    done = run("inspect", path.name, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in done.stdout
    assert "www...www" in done.stdout


def on_terminal(*arguments: str | Path, interrupt: bool = False, **environment: str) -> tuple[int, str, str]:
    """Run `ckptfmt` with a pseudo-terminal as stdout and another one as stderr; return exit code and both texts.

    With `interrupt`, send SIGINT as soon as something appears on stderr.
    """
    import pty

    variables = {**usual_environment(), "TERM": "xterm-256color", **environment}
    command = [sys.executable, "-m", "ckptfmt_cli", *map(str, arguments)]
    (out, out_end), (err, err_end) = pty.openpty(), pty.openpty()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out_end, stderr=err_end, env=variables)
    os.close(out_end)
    os.close(err_end)
    talk = b""
    with ThreadPoolExecutor(1) as readers:  # a terminal holds 4 KiB: what fills it waits until somebody reads
        result = readers.submit(_read_all, out)
        if interrupt:
            talk = os.read(err, 1 << 16)
            process.send_signal(signal.SIGINT)
        talk += _read_all(err)
        return process.wait(), result.result().decode(), talk.decode()


def _read_all(descriptor: int) -> bytes:
    text = b""
    try:
        while part := os.read(descriptor, 1 << 16):
            text += part
    except OSError:
        pass  # how Linux says that the other end of a pseudo-terminal is closed
    os.close(descriptor)
    return text


@posix
def test_a_terminal_gets_colour_unless_no_color_is_set(run_directory: Path) -> None:
    path = run_directory / "ckpt_5.ckptfmt"
    assert "\x1b[32mok\x1b[0m" in on_terminal("verify", path)[1]
    assert "\x1b" not in on_terminal("verify", path, NO_COLOR="1")[1]
    assert "\x1b" not in on_terminal("verify", path, TERM="dumb")[1]
    assert "\x1b" not in on_terminal("verify", "--json", path)[1]


@posix
@pytest.mark.parametrize("width", [40, 60, 80])
def test_text_shrinks_to_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.chdir(tmp_path)
    first, last = (Path("runs", f"a-checkpoint-of-the-run-{step}.ckptfmt") for step in (0, 59))
    first.parent.mkdir()
    metric = "a_metric_with_a_rather_long_name"
    for step in range(60):
        state = {f"encoder.layers.{at}.attention.weight": np.full((64, 64), step, np.float32) for at in range(50)}
        path = first.with_stem(f"a-checkpoint-of-the-run-{step}")
        ckptfmt.save({"net": state}, path, step=step, metrics={metric: 1.234567 / (step + 1)}, run_id="run")
    for command in (
        ("inspect", first),
        ("inspect", "--tree", first),
        ("inspect", "--stats", first),
        ("diff", first, last),
        ("diff", "--values", first, last),
        ("ls", "runs"),
        ("prune", "--dry-run", "--keep-last", "3", "--keep-best", "2", "--metric", metric, "--mode", "min", "runs"),
    ):
        _, text, _ = on_terminal(*command, COLUMNS=str(width), NO_COLOR="1")
        assert text
        assert [line for line in text.splitlines() if cells(line) > width] == [], command


@posix
def test_an_interrupt_at_the_question_of_prune_removes_nothing_but_the_question(run_directory: Path) -> None:
    import pty

    there = sorted(run_directory.glob("*.ckptfmt"))
    command = [sys.executable, "-m", "ckptfmt_cli", "prune", "--keep-last", "1", str(run_directory)]
    ours, theirs = pty.openpty()
    variables = {**usual_environment(), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=variables) as process:
        os.close(theirs)
        talk = b""
        while b"[y/N]" not in talk:
            talk += os.read(ours, 1 << 16)
        process.send_signal(signal.SIGINT)
        talk += _read_all(ours)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert talk.endswith(b"\r\x1b[K")
    assert sorted(run_directory.glob("*.ckptfmt")) == there


@posix
def test_long_work_shows_progress_and_an_interrupt_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "large.ckptfmt"
    sparse_checkpoint(path, (16 << 30) // 4)
    code, result, talk = on_terminal("verify", path, interrupt=True)
    assert (code, result) == (130, "")
    assert "large" in talk  # the end of the name may be cut
    assert "Traceback" not in talk
    assert talk.endswith("\r\x1b[K")  # the line of progress is gone
