"""With few descriptors or little memory, each command ends as it should or with one clear error and exit code 3.

Exit code 1 is an answer (damaged, differs, nothing found), and a process that lacks something has none.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt._core.ops.conversion.export import export
from ckptfmt._core.ops.members.extract import extract
from tests.cli.conftest import usual_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")

# The limit is set when the command line is imported, as a shell with the same limit would hardly get that far.
LIMITED = """
import resource, sys
from ckptfmt_cli import main
what, most, *arguments = sys.argv[1:]
resource.setrlimit(getattr(resource, what), (int(most), int(most)))
sys.argv[1:] = arguments
main.main()
"""

COMMANDS = {
    "ls": ["ls", "."],
    "latest": ["latest", "--verify", "."],
    "verify": ["verify", "."],
    "inspect": ["inspect", "1.ckptfmt"],
    "inspect --stats": ["inspect", "--stats", "z.ckptfmt"],
    "inspect --tensor": ["inspect", "--tensor", "net.w1", "1.ckptfmt"],
    "inspect --html": ["inspect", "--html", "{out}/a.html", "1.ckptfmt"],
    "inspect --pickle-imports": ["inspect", "--pickle-imports", "a.pth"],
    "inspect .npz": ["inspect", "a.npz"],
    "inspect .pth": ["inspect", "a.pth"],
    "inspect DIR": ["inspect", "hf"],
    "diff": ["diff", "--values", "1.ckptfmt", "2.ckptfmt"],
    "plot": ["plot", "-o", "{out}/a.svg", "."],
    "prune": ["prune", "--keep-last", "9", "--yes", "."],
    "strip": ["strip", "1.ckptfmt", "--drop", "optimizer", "-o", "{out}/a.ckptfmt"],
    "pin": ["pin", "1.ckptfmt"],
    "unpin": ["unpin", "1.ckptfmt"],
    "extract": ["extract", "z.ckptfmt", "-o", "{out}/members"],
    "pack": ["pack", "members", "--codec", "zstd", "-o", "{out}/a.ckptfmt"],
    "convert": ["convert", "--check", "--codec", "zstd", "a.pth", "{out}/a.ckptfmt"],
    "convert --recursive": ["convert", "--recursive", "old", "{out}/new"],
    "export": ["export", "z.ckptfmt", "{out}/a.safetensors"],
    "export DIR": ["export", "1.ckptfmt", "{out}/hf", "--component", "net"],
    "completion": ["completion", "bash"],
}
NO = {"diff": 1}
"""Exit codes of commands that lack nothing, if not 0."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("limits")
    net = {f"w{number}": np.arange(30_000, dtype=np.float32) + number for number in range(20)}
    for step in (1, 2):
        state = {"net": {**net, "w0": net["w0"] * step}, "optimizer": {"lr": 0.1}}
        ckptfmt.save(state, directory / f"{step}.ckptfmt", run_id="r", step=step, metrics={"loss": 1 / step})
    ckptfmt.save({"net": net}, directory / "z.ckptfmt", codec="zstd")
    np.savez(directory / "a.npz", w=np.ones(30_000, np.float32))
    torch.save({"net": {"w": torch.ones(30_000)}, "epoch": 1}, directory / "a.pth")
    export(directory / "1.ckptfmt", directory / "hf", component="net", shard_bytes=500_000)
    (directory / "hf" / "config.json").write_text("{}")
    extract(directory / "1.ckptfmt", directory / "members")
    (directory / "old").mkdir()
    (directory / "old" / "b.npz").write_bytes((directory / "a.npz").read_bytes())
    return directory


def run_limited(name: str, directory: Path, out: Path, what: str, most: int) -> int:
    """Run a command under a limit, and check how it ends."""
    arguments = [argument.replace("{out}", str(out)) for argument in COMMANDS[name]]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, what, str(most), *arguments],
        cwd=directory,
        env=usual_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (NO.get(name, 0), 3), (done.returncode, done.stderr)
    if done.returncode == 3 and name not in ("verify", "convert --recursive"):  # which tell it of each file
        (line,) = done.stderr.splitlines()
        assert line.startswith("ckptfmt: ")
    assert not list(out.rglob(".*.tmp"))
    return done.returncode


FEW = (3, 4, 5, 6, 8)
LITTLE = (100, 150, 200, 300, 450, 700)


@pytest.mark.parametrize(
    "most", [pytest.param(number, marks=() if number == 4 else pytest.mark.slow) for number in FEW]
)
@pytest.mark.parametrize("name", COMMANDS)
def test_few_descriptors(name: str, most: int, directory: Path, tmp_path: Path) -> None:
    run_limited(name, directory, tmp_path, "RLIMIT_NOFILE", most)


@pytest.mark.parametrize("most", [pytest.param(it, marks=() if it == 150 else pytest.mark.slow) for it in LITTLE])
@pytest.mark.parametrize("name", COMMANDS)
def test_little_memory(name: str, most: int, directory: Path, tmp_path: Path) -> None:
    run_limited(name, directory, tmp_path, "RLIMIT_AS", most << 20)


@pytest.mark.parametrize(("what", "most"), [("RLIMIT_NOFILE", 3), ("RLIMIT_AS", 100 << 20)])
def test_the_limits_bite(what: str, most: int, directory: Path, tmp_path: Path) -> None:
    assert run_limited("inspect --stats", directory, tmp_path, what, most) == 3


@pytest.mark.parametrize("name", COMMANDS)
def test_none_lacks_anything_with_room(name: str, directory: Path, tmp_path: Path) -> None:
    assert run_limited(name, directory, tmp_path, "RLIMIT_NOFILE", 200) == NO.get(name, 0)


def test_a_fault_of_ours_is_no_answer(directory: Path) -> None:
    code = (
        "import ckptfmt_cli.main as m, ckptfmt_cli.commands.ls as ls, sys\n"
        "def broken(*_, **__): raise ZeroDivisionError('oh')\n"
        "ls.list_directory = broken\n"
        "sys.argv = ['ckptfmt', 'ls', '.']\n"
        "m.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "ZeroDivisionError: oh" in done.stderr
