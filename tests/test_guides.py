"""Every example in the README and the guides is run, and prints what it is said to print."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import pytest

from ckptfmt.torch import Checkpointer
from tests.guide_files import make_files, names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {"README.md": 3, "distributed.md": 1, "doctor.md": 1, "loops.md": 2, "resume.md": 1}
"""How many blocks of each page have a comment `<!-- not run: why -->` before them."""
LANGUAGES = {"python", "console", "bash"}
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


def test_the_two_loops_are_those_of_the_examples() -> None:
    shown = [
        block.text for block in blocks(ROOT / "README.md") if block.why_not and "lines of examples" in block.why_not
    ]
    for block, example in zip(shown, ("plain.py", "train.py"), strict=True):
        source = (ROOT / "examples" / example).read_text().splitlines()
        for line in filter(None, block.splitlines()):
            assert line in source or line.strip() == "...", f"{example} has no line {line!r}"


def test_its_links_lead_somewhere() -> None:
    spec = (ROOT / "spec").glob("*.md")
    for path in (*PAGES, *spec, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} leads to {target}"


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        language: `python`, `console` and `bash` are run; any other is only shown.
        why_not: Why it is not run; None if it is.
    """

    language: str
    text: str
    why_not: str | None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that are code, those that are not run included."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(it["language"], it["text"], it["why"]) for it in found if it["language"] in LANGUAGES]


def transcripts(text: str) -> list[tuple[str, str]]:
    """Return the commands of a transcript, each with what it is said to print."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
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
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_blocks_of_a_page_do_what_they_show(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path)
    run("git init -q .", tmp_path)
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for number, block in enumerate(blocks(page)):
        if block.why_not is not None:
            continue
        if block.language == "python":
            space |= names(number)
            run_python(compile(block.text, f"{page.name}, block {number}", "exec"), space)
        else:
            check_transcript(block, tmp_path)
    if page.name == "command-line.md":
        check_git(tmp_path)


def run_python(code: CodeType, space: dict[str, object]) -> None:
    """Execute a block, and close the Checkpointer that it made: no handler of signals outlives it."""
    exec(code, space)
    ckpt = space.pop("ckpt", None)
    if isinstance(ckpt, Checkpointer):
        ckpt.close()


def check_transcript(block: Block, directory: Path) -> None:
    """See that each command of a transcript prints what it shows."""
    assert block.language == "console", "a script has no output to compare; show it as a transcript"
    for command, shown in transcripts(block.text):
        assert shown == "" or shown.replace("...\n", ""), f"$ {command}: show a line of what it prints"
        printed = run(command, directory)
        assert matches(shown, printed), f"$ {command}\n{printed}"


def test_the_blocks_that_are_not_run_are_known() -> None:
    counted = {page.name: sum(block.why_not is not None for block in blocks(page)) for page in PAGES}
    assert {name: number for name, number in counted.items() if number} == NOT_RUN


def test_no_block_escapes_the_pattern() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(?:python|console|bash)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == len(blocks(page)), page.name


def check_git(directory: Path) -> None:
    """See that git uses `ckptfmt` for checkpoints once it is configured as the guide says."""
    who = "git -c user.name=a -c user.email=a@b.c"
    run(f"cp runs/digits/ckpt-00000100.ckptfmt last.ckptfmt && git add -A && {who} commit -qm 1", directory)
    run("cp runs/digits/ckpt-00000120.ckptfmt last.ckptfmt", directory)
    shown = run("git --no-pager diff last.ckptfmt", directory)
    assert re.search(r"^-\s+step\s+100$", shown, re.MULTILINE)
    assert re.search(r"^\+\s+step\s+120$", shown, re.MULTILINE)
    tool = run("git --no-pager difftool -y -t ckptfmt last.ckptfmt", directory)
    assert "last_epoch" in tool
    assert "rng" in tool


def test_every_command_is_on_a_page() -> None:
    from ckptfmt_cli.main import _COMMANDS

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "json.md")
    assert [name for name in _COMMANDS if f"ckptfmt {name}" not in text and f"`{name}`" not in text] == []
