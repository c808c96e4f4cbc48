"""Whatever is above the package of the stores asks it, and not the operating system, about files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ckptfmt

ROOT = Path(ckptfmt.__file__).parent
STORAGE = ROOT / "_core" / "storage"
OF_PATHS = frozenset(
    "exists glob is_dir is_file is_symlink iterdir lstat mkdir read_bytes read_text readlink rename resolve rglob "
    "rmdir samefile stat symlink_to touch unlink write_bytes write_text".split()
)
OF_OS = frozenset("listdir lstat makedirs mkdir open remove rename replace rmdir scandir stat unlink".split())
# The tests for others to inherit make files for themselves. What a process is, the system's own files tell. The doctor
# rehearses in a scratch directory, where it keeps a plan and a journal of its own beside the checkpoints.
EXCEPTIONS = {"_core/ops/doctor", "_core/system", "_core/training/rehearsal", "testing"}


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the calls of a module that look at files or change them, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = node.func.value, node.func.attr
        of_os = isinstance(owner, ast.Name) and owner.id == "os"
        if (of_os and name in OF_OS) or (not of_os and name in OF_PATHS):
            yield node.lineno, name


def test_only_the_stores_look_at_files() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted(ROOT.rglob("*.py"))
        if STORAGE not in path.parents
        if not any(str(path.relative_to(ROOT)).startswith(place) for place in EXCEPTIONS)
        for line, name in calls(path)
    ]
    assert found == []


def test_the_stores_do() -> None:
    assert sum(1 for path in STORAGE.rglob("*.py") for _ in calls(path)) > 20
