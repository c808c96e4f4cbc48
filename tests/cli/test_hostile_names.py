"""Whatever a run, a tensor, a metric or a file is called: no command lets it steer the terminal or forge a line."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from tests.cli.conftest import usual_environment
from tests.hostile_names import HOSTILE, HOSTILE_FILE, MARK, is_harmless

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="such names, and pseudo-terminals")

OURS = re.compile(r"\x1b\[(?:[0-9;]*m|K)|\r(?=\x1b\[K)")
"""What we steer a terminal with: styles, and the line of progress."""

RUN = HOSTILE[:100]


def weights(scale: float) -> dict[str, Any]:
    return {HOSTILE: np.arange(12, dtype=np.float32) * scale, f"{HOSTILE}.{HOSTILE}": np.ones(3, np.float32)}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which everything that can have a name has a hostile one."""
    directory = tmp_path_factory.mktemp("runs") / HOSTILE_FILE
    directory.mkdir()
    for step in (1, 2, 3):
        ckptfmt.save(
            {
                "net": weights(step),
                "optimizer": {"param_groups": [{"lr": 0.1 / step, HOSTILE: HOSTILE}], "state": {}},
                "scheduler": {"last_epoch": step, "_kind": HOSTILE, HOSTILE: HOSTILE},
                "notes": {HOSTILE: [HOSTILE]},
            },
            directory / f"{step}{HOSTILE_FILE}.ckptfmt",
            run_id=RUN,
            step=step,
            metrics={HOSTILE: 1 / step, "loss": 1.0},
            user={HOSTILE: {HOSTILE: HOSTILE}},
        )
    data = (directory / f"1{HOSTILE_FILE}.ckptfmt").read_bytes()
    (directory / f"cut{HOSTILE_FILE}.ckptfmt").write_bytes(data[:-70])
    damaged = bytearray(data)
    damaged[data.index(weights(1)[HOSTILE].tobytes())] ^= 1
    (directory / f"damaged{HOSTILE_FILE}.ckptfmt").write_bytes(damaged)
    (directory / f".4{HOSTILE_FILE[:60]}.ckptfmt.0123abcd-0123456789abcdef.tmp").write_bytes(data[:5000])
    (directory / f"gone{HOSTILE_FILE}.ckptfmt").symlink_to(f"nowhere{HOSTILE_FILE}")
    np.savez(directory / f"arrays{HOSTILE_FILE}.npz", **weights(1))
    _safetensors(directory / f"weights{HOSTILE_FILE}.safetensors")
    (directory / f"not{HOSTILE_FILE}.safetensors").write_bytes(struct.pack("<Q", 9) + HOSTILE[:9].encode())
    (directory / f"global{HOSTILE_FILE}.pkl").write_bytes(_pickle_of_a_global(HOSTILE, HOSTILE))
    _archive(directory / f"archive{HOSTILE_FILE}.pth", HOSTILE)
    (directory / "below").mkdir()
    (directory / "below" / f"+{HOSTILE_FILE}").touch()
    return directory


def _safetensors(path: Path) -> None:
    header = json.dumps({HOSTILE: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def _pickle_of_a_global(module: str, name: str) -> bytes:
    texts = b"".join(b"X" + struct.pack("<I", len(text.encode())) + text.encode() for text in (module, name))
    return b"\x80\x04" + texts + b"\x93)R."


def _archive(path: Path, name: str) -> None:
    """Write what torch.save writes of a dict with such keys, and a member of that name."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({name: {name: 1.0}, "epoch": 3}, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr(f"archive/data/{name}", b"1234")


def in_a_pipe(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ckptfmt_cli", *arguments]
    environment = {**usual_environment(), "PYTHONUTF8": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=False, timeout=60)


def on_a_terminal(cwd: Path, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code, and what it wrote without what is ours to steer with."""
    import pty  # POSIX has it

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "ckptfmt_cli", *arguments]
    environment = {**usual_environment(), "PYTHONUTF8": "1", "TERM": "xterm", "COLUMNS": "500"}
    with subprocess.Popen(command, cwd=cwd, env=environment, stdin=follower, stdout=follower, stderr=follower) as child:
        os.close(follower)
        shown = b""
        while data := _read(leader):
            shown += data
    os.close(leader)
    return child.returncode, OURS.sub("", shown.decode().replace("\r\n", "\n"))


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # Linux: the other end is closed
        return b""


NEWEST, BEFORE = f"3{HOSTILE_FILE}.ckptfmt", f"2{HOSTILE_FILE}.ckptfmt"
COMMANDS: dict[str, tuple[int, list[str]]] = {
    "ls": (0, ["ls", "."]),
    "latest": (0, ["latest", "."]),
    "latest --verify": (0, ["latest", "--verify", "."]),
    "latest of no run": (1, ["latest", "--run", HOSTILE_FILE, "."]),
    "verify": (1, ["verify", "."]),
    "verify nothing": (3, ["verify", HOSTILE_FILE]),
    "inspect": (0, ["inspect", NEWEST]),
    "inspect --all": (0, ["inspect", "--all", NEWEST]),
    "inspect --tree": (0, ["inspect", "--tree", NEWEST]),
    "inspect --stats": (0, ["inspect", "--stats", NEWEST]),
    "inspect --tensor": (0, ["inspect", "--tensor", f"net.{HOSTILE}", NEWEST]),
    "inspect of no tensor": (1, ["inspect", "--tensor", HOSTILE_FILE, NEWEST]),
    "inspect damaged": (0, ["inspect", f"damaged{HOSTILE_FILE}.ckptfmt"]),
    "inspect --stats damaged": (1, ["inspect", "--stats", f"damaged{HOSTILE_FILE}.ckptfmt"]),
    "inspect .npz": (0, ["inspect", "--all", f"arrays{HOSTILE_FILE}.npz"]),
    "inspect .safetensors": (0, ["inspect", f"weights{HOSTILE_FILE}.safetensors"]),
    "inspect a bad .safetensors": (1, ["inspect", f"not{HOSTILE_FILE}.safetensors"]),
    "inspect .pth": (1, ["inspect", f"archive{HOSTILE_FILE}.pth"]),
    "inspect --pickle-imports": (1, ["inspect", "--pickle-imports", f"global{HOSTILE_FILE}.pkl"]),
    "inspect --json": (0, ["inspect", "--json", NEWEST]),
    "ls --json": (0, ["ls", "--json", "."]),
    "diff": (1, ["diff", "--all", "--values", BEFORE, NEWEST]),
    "diff with nothing": (3, ["diff", HOSTILE_FILE, NEWEST]),
    "plot": (0, ["plot", "-o", "{out}/plot.svg", "."]),
    "plot --json": (0, ["plot", "--json", "."]),
    "prune --dry-run": (0, ["prune", "--keep-best", "1", "--metric", HOSTILE, "--mode", "min", "--dry-run", "."]),
    "prune of no run": (1, ["prune", "--keep-last", "1", "--run", HOSTILE_FILE, "--dry-run", "."]),
    "prune by no metric": (2, ["prune", "--keep-best", "1", "--metric", HOSTILE_FILE, "."]),
    "prune a file": (2, ["prune", "--keep-last", "1", NEWEST]),
    "strip": (1, ["strip", "--drop", HOSTILE_FILE, "-o", "{out}/a.ckptfmt", NEWEST]),
    "pin": (3, ["pin", HOSTILE_FILE]),
    "unpin": (0, ["unpin", NEWEST]),
    "extract": (0, ["extract", NEWEST, "-o", "{out}/" + HOSTILE_FILE]),
    "extract nothing": (1, ["extract", NEWEST, "-o", "{out}/x", "--only", HOSTILE_FILE]),
    "pack": (1, ["pack", "below", "-o", "{out}/" + HOSTILE_FILE]),
    "pack over a file": (2, ["pack", "below", "-o", NEWEST]),
    "convert": (0, ["convert", f"arrays{HOSTILE_FILE}.npz", "{out}/" + HOSTILE_FILE + ".ckptfmt"]),
    "convert .pkl": (1, ["convert", "--strict", f"global{HOSTILE_FILE}.pkl", "{out}/a.ckptfmt"]),
    "convert --recursive": (1, ["convert", "--recursive", ".", "{out}/all" + HOSTILE_FILE]),
    "convert --recursive of a file": (2, ["convert", "--recursive", NEWEST, "{out}"]),
    "export": (0, ["export", NEWEST, "{out}/" + HOSTILE_FILE + ".safetensors"]),
    "export of no component": (1, ["export", "--component", HOSTILE_FILE, NEWEST, "{out}/a.npz"]),
    "no such command": (2, [HOSTILE_FILE]),
    "no such option": (2, ["ls", f"--{HOSTILE_FILE}"]),
    "no such choice": (2, ["inspect", "--sort", HOSTILE_FILE, "."]),
    "no number": (2, ["prune", "--keep-last", HOSTILE_FILE, "."]),
    "no size": (2, ["prune", "--max-size", HOSTILE_FILE, "."]),
    "too many arguments": (2, ["latest", ".", HOSTILE_FILE]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_name_steers_the_terminal(name: str, directory: Path, tmp_path: Path) -> None:
    expected, arguments = COMMANDS[name]
    arguments = [argument.replace("{out}", str(tmp_path)) for argument in arguments]
    code, shown = on_a_terminal(directory, *arguments)
    assert is_harmless(shown), ascii(shown)
    assert (code, "Traceback" in shown) == (expected, False), shown


def test_a_pipe_gets_the_very_bytes_of_the_newest_path(directory: Path) -> None:
    done = in_a_pipe(directory, "latest", ".")
    assert (done.returncode, done.stdout) == (0, os.fsencode(NEWEST) + b"\n")
    assert is_harmless(done.stderr.decode())


def test_a_person_gets_the_path_escaped(directory: Path) -> None:
    _, shown = on_a_terminal(directory, "latest", ".")
    assert f"\\n{MARK}" in shown.splitlines()[-1]


def test_talk_is_harmless_in_a_pipe_too(directory: Path) -> None:
    for name in ("ls", "verify", "diff", "inspect --all", "prune --dry-run"):
        done = in_a_pipe(directory, *COMMANDS[name][1])
        assert is_harmless(done.stdout.decode())
        assert is_harmless(done.stderr.decode())


def test_a_page_shows_no_name_that_turns_the_direction(directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    in_a_pipe(directory, "inspect", "--html", str(out), NEWEST)
    text = out.read_text(encoding="utf-8")
    data = json.loads(re.findall(r'id="data">(.*)</script>', text)[0])
    assert is_harmless("\n".join(tensor["name"] for tensor in data["tensors"]))
    assert "\u202e" not in text


def test_standard_output_that_cannot_be_written_is_told_harmlessly(directory: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ckptfmt_cli", "ls", "."],
            cwd=directory, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 3
    assert is_harmless(done.stderr.decode())
