"""What is imported: the frameworks only when they are needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FRAMEWORKS = {"numpy", "torch", "ml_dtypes", "jax"}
VALID = Path(__file__).parents[2] / "spec" / "vectors" / "valid"


def imported_by(code: str, *arguments: str | Path) -> set[str]:
    """Run code in a fresh interpreter; return which of the frameworks it has imported when it ends."""
    # Whatever the code prints stays apart from our answer, and it may end by raising SystemExit.
    script = f"""
import atexit, os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
atexit.register(lambda: (answer.write(" ".join(sorted(sys.modules))), answer.close()))
{code}
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    modules = set(done.stdout.split())
    assert "ckptfmt" in modules
    return modules & FRAMEWORKS


def test_importing_the_library_imports_no_framework() -> None:
    assert imported_by("import ckptfmt") == set()


def test_an_import_would_be_seen() -> None:
    assert "numpy" in imported_by("import ckptfmt, numpy"), "or the other tests would prove nothing"


@pytest.mark.parametrize("options", [["--help"], ["--version"]])
def test_the_bare_command_imports_no_framework(options: list[str]) -> None:
    assert imported_by("from ckptfmt_cli.main import main; main()", *options) == set()


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"], ["verify"], ["ls"]])
def test_commands_that_only_look_import_no_framework(command: list[str]) -> None:
    vector = min(VALID.glob("*.ckptfmt"))
    place = VALID if command == ["ls"] else vector
    assert imported_by("from ckptfmt_cli.main import main; main()", *command, place) == set()
