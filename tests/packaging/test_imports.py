"""What is imported: the frameworks, and our own modules, only when they are needed; and the public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ckptfmt

EXTENSIONS = {"blake3", "msgpack", "safetensors", "zstandard"}
FRAMEWORKS = {"numpy", "torch", "ml_dtypes", "jax"}
VALID = Path(__file__).parents[2] / "spec" / "vectors" / "valid"


def modules_after(code: str, *arguments: str | Path) -> set[str]:
    """Run code in a fresh interpreter; return all modules that are imported when it ends."""
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
    return modules


def imported_by(code: str, *arguments: str | Path) -> set[str]:
    """Run code in a fresh interpreter; return which of the frameworks it has imported when it ends."""
    return modules_after(code, *arguments) & FRAMEWORKS


ERRORS = {"ckptfmt._problems", "ckptfmt._version", "ckptfmt.errors", "ckptfmt._escaping"}


def ours(code: str, *arguments: str | Path) -> set[str]:
    """The same, of the library's own modules."""
    return {module for module in modules_after(code, *arguments) if module.startswith("ckptfmt.")}


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


def test_a_public_name_imports_its_own_module_only() -> None:
    assert ours("import ckptfmt") == {"ckptfmt._version"}
    assert ours("import ckptfmt; ckptfmt.CkptfmtError") == ERRORS
    assert "ckptfmt._core.container.writer" not in ours("import ckptfmt; ckptfmt.Checkpoint")


@pytest.mark.parametrize("options", [["--help"], ["--version"]])
def test_the_bare_command_imports_neither_commands_nor_what_they_need(options: list[str]) -> None:
    modules = modules_after("from ckptfmt_cli.main import main; main()", *options)
    assert {module for module in modules if module.startswith("ckptfmt.")} == ERRORS
    assert not {"ckptfmt_cli.commands", *EXTENSIONS} & modules


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"]])
def test_inspect_imports_its_own_command_only_and_nothing_that_writes(command: list[str]) -> None:
    vector = VALID / "big-integers.ckptfmt"
    modules = modules_after("from ckptfmt_cli.main import main; main()", *command, vector)
    assert {module for module in modules if module.startswith("ckptfmt_cli.commands.")} == {
        "ckptfmt_cli.commands.inspect"
    }
    assert (
        not {"ckptfmt._core.container.writer", "ckptfmt._core.api", "ckptfmt._core.pth", "ckptfmt_cli.pages"} & modules
    )
    assert EXTENSIONS & modules == {"blake3", "msgpack"}  # the file is not compressed


def test_every_public_name_is_there_and_listed() -> None:
    assert set(ckptfmt.__all__) <= set(dir(ckptfmt))
    scope: dict[str, object] = {}
    exec("from ckptfmt import *", scope)
    assert scope.keys() >= set(ckptfmt.__all__)
    assert ckptfmt.open is scope["open"] is sys.modules["ckptfmt._core.api"].open


def test_type_checkers_see_the_names_that_programs_see() -> None:
    tree = ast.parse(Path(ckptfmt.__file__).read_text(encoding="utf-8"))
    (checking,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in checking.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert homes.keys() | {"__version__"} == set(ckptfmt.__all__)
    for name, module in homes.items():
        assert getattr(ckptfmt, name) is getattr(sys.modules[str(module)], name)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="opne"):
        getattr(ckptfmt, "opne")  # noqa: B009  # mypy would refuse `ckptfmt.opne`, as it should
