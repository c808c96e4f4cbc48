"""`latest`, `prune`, `pin` and `unpin`: what they say, what they ask, and which exit code they end with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import ckptfmt
from ckptfmt._core.ops.directory.prune import PrunePlan
from ckptfmt._core.runs.retention import RetentionPolicy, plan_retention
from ckptfmt._core.storage.local.lock import prune_lock
from ckptfmt_cli.terminal import PLAIN, Terminal
from ckptfmt_cli.text import cells
from ckptfmt_cli.views.prune import plan_lines
from tests.cli.conftest import NOW, RUN, Golden, invoke, state, usual_environment
from tests.runs.test_retention import file, usual

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals and locks")

KEEP_LAST = ("prune", "--keep-last", "1")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with five checkpoints of a run, the best one in the middle."""
    directory = tmp_path / "runs"
    directory.mkdir()
    for epoch in range(1, 6):
        ckptfmt.save(
            state(epoch),
            directory / f"ckpt_{epoch}.ckptfmt",
            run_id=RUN,
            step=epoch * 100,
            metrics={"val_loss": abs(epoch - 3) / 10, "oddness": epoch % 2},
            created=datetime.now(UTC) - timedelta(hours=6 - epoch),
        )
    return directory


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.ckptfmt"))


def test_prune_plan(golden: Golden) -> None:
    files = [*usual(), file("pinned", 50, pinned=True), file("other_run", 7, run="other"), file("export", run=None)]
    policy = RetentionPolicy(keep_last=2, keep_best=("loss", "min"), keep_every_steps=400, run_id="r")
    planned = PrunePlan("runs/digits", policy, plan_retention(files, policy, now=NOW))
    golden("prune.txt", plan_lines(planned, PLAIN, NOW))
    for width in (60, 100):
        assert all(cells(line) <= width for line in plan_lines(planned, Terminal(width=width), NOW))


def test_names_in_a_plan_move_no_cursor() -> None:
    hostile = "\x1b[2J\nkeep"
    files = [file(hostile, 2, run=hostile), file("old", 1, run=hostile)]
    policy = RetentionPolicy(keep_last=1)
    lines = plan_lines(PrunePlan(hostile, policy, plan_retention(files, policy, now=NOW)), PLAIN, NOW)
    assert all(line.isprintable() for line in lines)


def test_latest_prints_the_path_alone(directory: Path) -> None:
    result = invoke("latest", directory)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{directory / 'ckpt_5.ckptfmt'}\n", "")


def test_latest_verify_passes_over_what_is_damaged(run_directory: Path) -> None:
    (run_directory / "ckpt_15.ckptfmt").unlink()  # flipped.ckptfmt is the newest now
    assert invoke("latest", run_directory).stdout == f"{run_directory / 'flipped.ckptfmt'}\n"
    result = invoke("latest", "--verify", run_directory)
    assert (result.exit_code, result.stdout) == (0, f"{run_directory / 'ckpt_10.ckptfmt'}\n")
    assert "conv.weight" in result.stderr
    document = json.loads(invoke("latest", "--verify", "--json", run_directory).stdout)
    assert str(run_directory / "flipped.ckptfmt") in [item["path"] for item in document["skipped"]]


def test_latest_of_nothing_is_1_and_prints_nothing(tmp_path: Path) -> None:
    result = invoke("latest", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(tmp_path) in result.stderr
    assert json.loads(invoke("latest", "--json", tmp_path).stdout)["path"] is None
    assert invoke("latest", tmp_path / "missing").exit_code == 3


@posix
def test_latest_gives_the_very_bytes_of_a_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"gr\xfc\xc3\xb6.ckptfmt")
    ckptfmt.save(state(1), tmp_path / name, run_id="r", step=1)
    environment = {**usual_environment(), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "ckptfmt_cli", "latest", str(tmp_path)]
    assert subprocess.check_output(command, env=environment) == os.fsencode(tmp_path / name) + b"\n"


def test_a_dry_run_shows_the_plan_and_removes_nothing(directory: Path) -> None:
    result = invoke("prune", "--keep-last", "1", "--keep-best", "1", "--metric", "val_loss", "--dry-run", directory)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {line.partition("ckpt_")[2][:1]: line for line in result.stdout.splitlines() if "ckpt_" in line}
    assert {epoch: line.split()[0] for epoch, line in rows.items()} == {
        **dict.fromkeys("53", "keep"),
        **dict.fromkeys("421", "remove"),
    }
    assert len(names(directory)) == 5


def test_without_a_terminal_it_needs_yes(directory: Path) -> None:
    result = invoke(*KEEP_LAST, directory)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert "ckpt_1.ckptfmt" in result.stdout, "the plan is shown all the same"
    assert len(names(directory)) == 5


def test_with_yes_it_removes_and_shows_what_was_freed(directory: Path) -> None:
    freed = sum(path.stat().st_size for path in directory.glob("*.ckptfmt")) * 4 // 5
    result = invoke(*KEEP_LAST, "--yes", directory)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f" {freed / 1024:.0f} KiB" in result.stdout.splitlines()[-1]
    assert names(directory) == ["ckpt_5.ckptfmt"]
    again = invoke(*KEEP_LAST, "--yes", directory)
    assert (again.exit_code, names(directory)) == (0, ["ckpt_5.ckptfmt"])


@posix
@pytest.mark.parametrize(("answer", "left", "code"), [("y\n", 1, 0), ("n\n", 5, 1), ("\n", 5, 1)])
def test_on_a_terminal_it_asks(directory: Path, answer: str, left: int, code: int) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ckptfmt_cli", *KEEP_LAST, str(directory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=theirs, stdout=pipe, stderr=pipe, text=True, env=usual_environment()) as asked:
        os.close(theirs)
        os.write(ours, answer.encode())
        shown, talk = asked.communicate(timeout=60)
    os.close(ours)
    assert asked.returncode == code
    assert "[y/N]" in talk
    assert "ckpt_1.ckptfmt" in shown
    assert len(names(directory)) == left


def damage_the_newest(directory: Path) -> None:
    path = directory / "ckpt_5.ckptfmt"
    data = bytearray(path.read_bytes())
    data[data.index(state(5)["net"]["conv.weight"].tobytes())] ^= 1
    path.write_bytes(data)


def test_what_proves_to_be_damaged_is_named_and_something_else_is_kept(directory: Path) -> None:
    damage_the_newest(directory)
    result = invoke(*KEEP_LAST, "--yes", directory)
    assert result.exit_code == 0
    for name in ("ckpt_5.ckptfmt: ", "ckpt_4.ckptfmt: "):
        assert f"{directory}/{name}" in result.stdout
    assert names(directory) == ["ckpt_4.ckptfmt", "ckpt_5.ckptfmt"]


def test_what_proves_to_be_damaged_is_in_the_json(directory: Path) -> None:
    damage_the_newest(directory)
    document = json.loads(invoke(*KEEP_LAST, "--yes", "--json", directory).stdout)
    assert [Path(item["path"]).name for item in document["damaged"]] == ["ckpt_5.ckptfmt"]
    assert [Path(path).name for path in document["spared"]] == ["ckpt_4.ckptfmt"]


def test_json_is_the_report_and_never_asks(directory: Path) -> None:
    assert invoke(*KEEP_LAST, "--json", directory).exit_code == 2
    planned = json.loads(invoke(*KEEP_LAST, "--json", "--dry-run", directory).stdout)
    assert (planned["report"], planned["applied"], planned["removed"]) == ("prune/1", False, [])
    done = json.loads(invoke(*KEEP_LAST, "--json", "--yes", directory).stdout)
    assert (done["applied"], len(done["removed"])) == (True, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--keep-last"),
        (["--keep-last", "0"], "keep-last"),
        (["--keep-best", "1"], "--metric"),
        (["--keep-last", "1", "--mode", "min"], "--metric"),
        (["--keep-best", "1", "--metric", "oddness"], "--mode"),
        (["--keep-within", "soon"], "7d"),
        (["--max-size", "huge"], "200GB"),
        (["--keep-last", "1", "--run", "a", "--no-run"], "--no-run"),
    ],
)
def test_what_makes_no_sense_is_2(directory: Path, arguments: list[str], words: str) -> None:
    result = invoke("prune", *arguments, "--yes", directory)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert len(names(directory)) == 5


def test_every_rule_has_its_option(directory: Path) -> None:
    def kept(*arguments: str) -> list[int]:
        document = json.loads(invoke("prune", *arguments, "--json", "--dry-run", directory).stdout)
        return [item["metadata"]["step"] for item in document["decisions"] if item["keep"]]

    size = (directory / "ckpt_1.ckptfmt").stat().st_size
    assert kept("--keep-last", "2") == [500, 400]
    assert kept("--keep-best", "2", "--metric", "val_loss") == [500, 400, 300]
    assert kept("--keep-best", "1", "--metric", "oddness", "--mode", "min") == [500, 400]
    assert kept("--keep-every", "200") == [500, 400, 200]
    assert kept("--keep-within", "90min") == [500, 400]
    assert kept("--max-size", f"{2 * size}") == [500, 400]


def test_a_run_that_is_not_there_is_1_and_the_others_are_named(directory: Path) -> None:
    result = invoke(*KEEP_LAST, "--run", "another", "--yes", directory)
    assert result.exit_code == 1
    assert RUN in result.stderr
    assert len(names(directory)) == 5


@posix
def test_beside_another_prune_it_says_so(directory: Path) -> None:
    with prune_lock(directory):
        result = invoke(*KEEP_LAST, "--yes", directory)
    assert result.exit_code == 3
    assert str(directory) in result.stderr
    assert len(names(directory)) == 5


def test_pins_keep(directory: Path) -> None:
    path = directory / "ckpt_1.ckptfmt"
    result = invoke("pin", path, path)
    assert (result.exit_code, result.stdout.count(f"{path}: ")) == (0, 2)
    assert json.loads(invoke("ls", "--json", directory).stdout)["entries"][0]["marks"] == ["pinned"]
    assert invoke(*KEEP_LAST, "--yes", directory).exit_code == 0
    assert names(directory) == ["ckpt_1.ckptfmt", "ckpt_5.ckptfmt"]
    for _ in range(2):
        result = invoke("unpin", path)
        assert (result.exit_code, result.stdout.count(f"{path}: ")) == (0, 1)
    assert invoke(*KEEP_LAST, "--yes", directory).exit_code == 0
    assert names(directory) == ["ckpt_5.ckptfmt"]


def test_pins_as_json(directory: Path) -> None:
    path = directory / "ckpt_1.ckptfmt"
    assert json.loads(invoke("pin", "--json", path).stdout) == {
        "report": "pin/1",
        "files": [{"path": str(path), "pinned": True, "changed": True}],
    }
    assert json.loads(invoke("pin", "--json", path).stdout)["files"][0]["changed"] is False
    for changed in (True, False):
        document = json.loads(invoke("unpin", "--json", path).stdout)
        assert document["report"] == "unpin/1"
        assert document["files"] == [{"path": str(path), "pinned": False, "changed": changed}]


def test_what_is_not_there_cannot_be_pinned(directory: Path) -> None:
    result = invoke("pin", directory / "missing.ckptfmt")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "missing.ckptfmt" in result.stderr
