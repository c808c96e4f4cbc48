"""`ckptfmt convert`, `export` and `inspect --pickle-imports`: what they say, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import ckptfmt
from ckptfmt_cli import main as command_line
from tests.cli.conftest import Ckptfmt, usual_environment
from tests.pth import legacy_files
from tests.pth.attacks import GOOD, call, stream_of, zip_of


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command_line.cli, [str(argument) for argument in arguments])


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    return legacy_files.save(legacy_files.documented(), tmp_path / "ckpt_best_4.pth")


def test_convert_says_what_became_of_the_file(pth: Path, tmp_path: Path) -> None:
    result = invoke("convert", pth, tmp_path / "a.ckptfmt")
    assert (result.exit_code, result.stderr) == (0, "")
    for fact in (str(pth), "pth zip", "net, optimizer, epoch"):
        assert fact in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines()[1:])


def test_convert_json_is_the_report(pth: Path, tmp_path: Path) -> None:
    result = invoke(
        "convert", "--json", "--check", "--codec", "zstd", "--run-id", "digits", pth, tmp_path / "a.ckptfmt"
    )
    document = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert document["report"] == "convert/1"
    assert document["compared"] == document["tensors"] > 0
    assert document["epoch"] == 5, "the file notes the last epoch that is finished, 4"
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert checkpoint["net"].codec == "zstd"
        assert checkpoint.metadata.run_id == "digits"


def test_a_target_that_is_a_directory_takes_the_name_of_the_source(pth: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert invoke("convert", pth, tmp_path / "new").exit_code == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ckpt_best_4.ckptfmt"]


def test_convert_writes_the_format_that_the_extension_names(pth: Path, tmp_path: Path) -> None:
    assert invoke("convert", pth, tmp_path / "a.ckptfmt").exit_code == 0
    assert invoke("convert", tmp_path / "a.ckptfmt", tmp_path / "b.pth").exit_code == 0
    assert torch.load(tmp_path / "b.pth", weights_only=True)["epoch"] == 4
    assert invoke("convert", pth, tmp_path / "net.safetensors").exit_code == 0
    for option in (["--codec", "zstd"], ["--run-id", "x"]):
        assert invoke("convert", *option, pth, tmp_path / "c.pth").exit_code == 2
    assert not (tmp_path / "c.pth").exists()


EVIL = call("os", "system", "x")


@pytest.mark.parametrize(
    "content", [EVIL, zip_of(EVIL), zip_of(GOOD, {"constants.pkl": EVIL}), stream_of(slots={0: EVIL})]
)
def test_what_asks_for_code_is_1_and_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(content)
    result = invoke("convert", path, tmp_path / "a.ckptfmt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "os.system" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [child.name for child in tmp_path.iterdir()] == ["evil.pth"]


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"hello", b"\x80\x02}"],
    ids=["empty", "zip", "7z", "text", "cut"],
)
def test_what_is_broken_is_1(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    result = invoke("convert", path, tmp_path / "a.ckptfmt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"ckptfmt: {path}: ")
    assert result.stderr.count("\n") == 1


def test_what_cannot_be_read_or_written_is_3(pth: Path, tmp_path: Path) -> None:
    assert invoke("convert", tmp_path / "gone.pth", tmp_path / "a.ckptfmt").exit_code == 3
    assert invoke("convert", pth, tmp_path / "gone" / "a.ckptfmt").exit_code == 3
    assert invoke("convert", pth, pth).exit_code == 3


def test_recursive_goes_past_bad_files_and_ends_with_1(pth: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(zip_of(EVIL))
    result = invoke("convert", "--recursive", tmp_path, tmp_path / "new")
    assert result.exit_code == 1
    good, bad = sorted(result.stdout.splitlines())
    assert good.startswith(str(pth))
    assert bad.startswith(str(tmp_path / "evil.pth"))
    assert "os.system" in bad
    result = invoke("convert", "--recursive", "--json", tmp_path, tmp_path / "new")
    document = json.loads(result.stdout)
    assert len(document["converted"]) == 1
    assert len(document["failed"]) == 1


def test_recursive_without_anything_to_convert_is_1_and_without_a_directory_2(pth: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert invoke("convert", "--recursive", tmp_path / "empty", tmp_path / "new").exit_code == 1
    assert invoke("convert", "--recursive", pth, tmp_path / "new").exit_code == 2


def test_export_of_a_component(pth: Path, tmp_path: Path) -> None:
    invoke("convert", pth, tmp_path / "a.ckptfmt")
    result = invoke("export", tmp_path / "a.ckptfmt", tmp_path / "net.safetensors", "--component", "net")
    assert (result.exit_code, result.stderr) == (0, "")
    result = invoke("export", "--json", tmp_path / "a.ckptfmt", tmp_path / "hub", "--shard-gb", "0.0000001")
    assert json.loads(result.stdout)["target_form"] == "hf"
    assert (tmp_path / "hub" / "model.safetensors.index.json").exists()
    result = invoke("export", tmp_path / "a.ckptfmt", tmp_path / "b.safetensors", "--component", "nothing")
    assert result.exit_code == 1
    assert "'nothing'" in result.stderr
    assert invoke("export", tmp_path / "a.ckptfmt", tmp_path / "c.ckptfmt").exit_code == 1
    result = invoke("export", tmp_path / "a.ckptfmt", tmp_path / "d.foo")
    assert (result.exit_code, ".foo" in result.stderr, ".npz" in result.stderr) == (1, True, True)
    result = invoke("export", tmp_path / "a.ckptfmt", tmp_path / "d.npz", "--shard-gb", "1")
    assert (result.exit_code, (tmp_path / "d.npz").exists()) == (2, False)


def test_globals_lists_what_would_have_been_run(pth: Path, tmp_path: Path) -> None:
    result = invoke("inspect", "--pickle-imports", pth)
    assert result.exit_code == 0
    assert "torch._utils._rebuild_tensor_v2" in result.stdout
    (tmp_path / "evil.pth").write_bytes(zip_of(EVIL))
    result = invoke("inspect", "--pickle-imports", tmp_path / "evil.pth")
    assert result.exit_code == 1
    assert "os.system" in result.stdout
    result = invoke("inspect", "--pickle-imports", "--json", tmp_path / "evil.pth")
    document = json.loads(result.stdout)
    assert (document["report"], document["safe"]) == ("pickle-imports/1", False)
    assert [(use["name"], use["called"], use["verdict"]) for use in document["names"]] == [
        ("os.system", True, "refused")
    ]


def test_neither_needs_a_framework(pth: Path, tmp_path: Path, run: Ckptfmt) -> None:
    code = (
        "import sys; from ckptfmt_cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert not {'torch', 'pickle', 'safetensors'} & set(sys.modules), sorted(sys.modules)"
    )
    for arguments in (["convert", str(pth), str(tmp_path / "a.ckptfmt")], ["inspect", "--pickle-imports", str(pth)]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# A conversion that never ends by itself: the first chunks take long enough for progress to show, the others for ever.
NEVER_ENDING = """
import itertools, threading, time
import ckptfmt._core.container.writer
from ckptfmt_cli.main import main

encode, number = ckptfmt._core.container.writer.encode_chunk, itertools.count()

def slowly(*arguments, **options):
    if next(number) < 12:
        time.sleep(0.6)
    else:
        threading.Event().wait()
    return encode(*arguments, **options)

ckptfmt._core.container.writer.encode_chunk = slowly
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals and a pseudo-terminal")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_progress_on_a_terminal_and_nothing_left_after_an_interrupt(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    import pty  # POSIX has it

    path = tmp_path / "large.npz"
    arrays: dict[str, Any] = {str(number): np.full(4 << 20, number, np.uint8) for number in range(24)}
    np.savez(path, **arrays)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", NEVER_ENDING, "convert", str(path), str(tmp_path / "a.ckptfmt"), "--codec", "zstd"],
        stderr=follower,
        stdout=subprocess.DEVNULL,
        env={**usual_environment(), "TERM": "xterm"},
    )
    try:
        os.close(follower)
        shown = b""
        while b"% " not in shown:
            shown += os.read(leader, 1024)
        process.send_signal(number)
        assert process.wait() == code
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"large.npz" in shown
    assert [child.name for child in tmp_path.iterdir()] == ["large.npz"]


@pytest.mark.parametrize("command", ["inspect", "convert", "export"])
def test_what_cannot_be_expressed_is_1_in_every_command(tmp_path: Path, command: str) -> None:
    torch.save({"a": "\ud800"}, tmp_path / "a.pth")  # half a character
    targets = [] if command == "inspect" else [tmp_path / "out.safetensors"]
    result = invoke(command, tmp_path / "a.pth", *targets)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_inspect_adds_up_what_is_in_a_file_of_another_format(pth: Path) -> None:
    lines = invoke("inspect", pth).stdout.splitlines()
    (total,) = [line for line in lines if line.startswith("total")]
    assert " 0 B" not in total


def test_export_checks_what_it_wrote(pth: Path, tmp_path: Path) -> None:
    result = invoke("export", "--strict", "--check", "--json", pth, tmp_path / "net.safetensors")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["compared"] == json.loads(result.stdout)["tensors"] > 0
    assert invoke("convert", "--check", pth, tmp_path / "b.pth").exit_code == 0
