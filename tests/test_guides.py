"""The README shows what the examples really are."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guide_files import make_files

ROOT = Path(__file__).parent.parent


def test_the_two_loops_are_those_of_the_examples() -> None:
    table = (ROOT / "README.md").read_text().partition("<table>")[2].partition("</table>")[0]
    blocks = re.findall(r"```python\n(.*?)```", table, re.DOTALL)
    for block, example in zip(blocks, ("plain.py", "train.py"), strict=True):
        source = (ROOT / "examples" / example).read_text().splitlines()
        for line in filter(None, block.splitlines()):
            assert line in source or line.strip() == "...", f"{example} has no line {line!r}"


def test_its_links_lead_somewhere() -> None:
    for document in (
        "README.md",
        "CONTRIBUTING.md",
        "spec/rationale.md",
        "spec/threat-model.md",
        "spec/ckptfmt-1.md",
        "docs/exit-codes.md",
        "docs/style.md",
    ):
        path = ROOT / document
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{document} leads to {target}"


CHAPTER = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The command line\n")[2].partition("\n## ")[0]


def transcripts() -> list[tuple[str, str]]:
    """Return the commands of the chapter on the command line, each with what it is said to print."""
    blocks = re.findall(r"```console\n(.*?)```", CHAPTER, re.DOTALL)
    parts = re.split(r"^\$ (.*)\n", "".join(blocks), flags=re.MULTILINE)
    assert parts[0] == ""
    return list(zip(parts[1::2], parts[2::2], strict=True))


def run(command: str, directory: Path) -> str:
    """Run a command as a person would, and return all that it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}", "PYTHONUTF8": "1"}
    done = subprocess.run(
        command,
        shell=True,
        check=False,
        cwd=directory,
        env={**environment, "LC_ALL": "C.UTF-8", "HOME": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
    )
    return done.stdout


def matches(shown: str, printed: str) -> bool:
    """Say whether a transcript shows what was printed; a line `...` stands for any lines."""
    pattern = re.escape(shown).replace(re.escape("...\n"), "(?:.*\n)*")
    return re.fullmatch(pattern, printed) is not None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.skipif(os.name == "nt", reason="the transcripts are of a POSIX shell")
def test_the_transcripts_are_what_the_commands_print(tmp_path: Path) -> None:
    make_files(tmp_path)
    run("git init -q .", tmp_path)
    found = transcripts()
    assert len(found) >= 15
    for command, shown in found:
        printed = run(command, tmp_path)
        assert matches(shown, printed), f"$ {command}\n{printed}"
    check_git(tmp_path)


def check_git(directory: Path) -> None:
    """See that git uses `ckptfmt` for checkpoints once it is told what the README says."""
    who = "git -c user.name=a -c user.email=a@b.c"
    run(f"cp runs/digits/ckpt-00000100.ckptfmt last.ckptfmt && git add -A && {who} commit -qm 1", directory)
    run("cp runs/digits/ckpt-00000120.ckptfmt last.ckptfmt", directory)
    shown = run("git --no-pager diff last.ckptfmt", directory)
    assert re.search(r"^-\s+step\s+100$", shown, re.MULTILINE)
    assert re.search(r"^\+\s+step\s+120$", shown, re.MULTILINE)
    tool = run("git --no-pager difftool -y -t ckptfmt last.ckptfmt", directory)
    assert "last_epoch" in tool
    assert "rng" in tool


def test_every_command_is_in_the_chapter_or_has_one_of_its_own() -> None:
    from ckptfmt_cli.main import _COMMANDS

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in _COMMANDS if f"ckptfmt {name}" not in readme and f"`{name}`" not in readme] == []
