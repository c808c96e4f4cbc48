"""Every command with no thread to be had, or a single one: a real limit, and the same answers as without it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.ops.directory.verify import verify_paths
from tests import few_threads
from tests.cli.conftest import NOW, usual_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and users as Linux has them")

WRITTEN = ("new.ckptfmt", "plain.ckptfmt", "stripped.ckptfmt", "packed.ckptfmt")
COMMANDS = (
    "verify a.ckptfmt z.ckptfmt",
    "verify damaged.ckptfmt",
    "verify --quick run",
    "verify run",
    "ls run",
    "latest run",
    "inspect a.ckptfmt",
    "inspect --stats z.ckptfmt",
    "inspect --stats damaged.ckptfmt",
    "inspect --tensor net.w0 z.ckptfmt",
    "inspect --html page.html --stats a.ckptfmt",
    "diff a.ckptfmt z.ckptfmt",
    "diff --values a.ckptfmt b.ckptfmt",
    "export --check z.ckptfmt out.pth",
    "export --check --component net z.ckptfmt out.safetensors",
    "export --check --component net a.ckptfmt out.npz",
    "export --format hf --shard-gb 0.01 --component net a.ckptfmt shards",
    "export damaged.ckptfmt no.pth",
    "diff out.pth z.ckptfmt",
    "inspect --stats out.pth",
    "convert --check out.pth new.ckptfmt",
    "convert --codec zstd out.safetensors plain.ckptfmt",
    "verify new.ckptfmt plain.ckptfmt",
    "extract z.ckptfmt -o members",
    "extract damaged.ckptfmt -o nothing",
    "pack members -o packed.ckptfmt",
    "pack members --codec none -o stored.ckptfmt",
    "strip a.ckptfmt --drop optimizer -o stripped.ckptfmt",
    "strip damaged.ckptfmt --drop optimizer -o nothing.ckptfmt",
    "plot run -o picture.svg --norms",
    "pin run/ckpt-1.ckptfmt",
    "prune run --keep-last 1 --yes",
    "unpin run/ckpt-1.ckptfmt",
)


def state(seed: int) -> dict[str, object]:
    """Return a state with tensors of several chunks."""
    random = np.random.default_rng(seed)
    net = {f"w{number}": random.standard_normal(1_200_000 + number, np.float32) for number in range(3)}
    return {"net": net, "optimizer": {"m": random.standard_normal(1_500_000, np.float32), "lr": 0.1}}


def make_files(directory: Path) -> None:
    directory.mkdir()
    ckptfmt.save(state(0), directory / "a.ckptfmt", created=NOW)
    ckptfmt.save(state(0), directory / "z.ckptfmt", created=NOW, codec="zstd")
    ckptfmt.save(state(1), directory / "b.ckptfmt", created=NOW)
    content = bytearray((directory / "z.ckptfmt").read_bytes())
    content[len(content) // 2] ^= 1
    (directory / "damaged.ckptfmt").write_bytes(content)
    (directory / "run").mkdir()
    for step in (1, 2, 3):
        path = directory / "run" / f"ckpt-{step}.ckptfmt"
        ckptfmt.save(state(step), path, step=step, run_id="r", created=NOW, metrics={"loss": 1 / step})


def answers(directory: Path, room: int | None) -> dict[str, tuple[int, str]]:
    """Return exit code and output of each command."""
    make_files(directory)
    limited = [] if room is None else [few_threads.__file__, str(room)]
    found = {}
    for command in COMMANDS:
        start = [sys.executable, *limited] if limited else [sys.executable, "-m"]
        ended = subprocess.run(
            [*start, "ckptfmt_cli", *command.split()],
            capture_output=True,
            text=True,
            cwd=directory,
            env={**usual_environment(), "PYTHONUTF8": "1", "PYTHONWARNINGS": "error"},
            timeout=120,
            check=False,
        )
        assert "Traceback" not in ended.stderr, f"{command}: {ended.stderr}"
        said = (ended.stdout + ended.stderr).replace(str(directory), "DIR")
        found[command] = (ended.returncode, re.sub(r"identity +[0-9a-f]+|[0-9a-f]{64}", "IDENTITY", said))
    assert verify_paths(directory / name for name in WRITTEN).sound
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    found = answers(tmp_path_factory.mktemp("unlimited") / "files", None)
    assert {command for command, (code, _) in found.items() if code != 0} == {
        command for command in COMMANDS if "damaged" in command or command == "diff --values a.ckptfmt b.ckptfmt"
    }
    assert {code for code, _ in found.values()} == {0, 1}
    return found


@pytest.mark.parametrize("room", [0, 1])
def test_every_command_answers_the_same(tmp_path: Path, expected: dict[str, tuple[int, str]], room: int) -> None:
    assert answers(tmp_path / "files", room) == expected
