"""The wheel is whole, and it works in an environment that has only what it asks for."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import ckptfmt

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, code: int = 0) -> str:
    """Run a command away from the source tree, so that only what is installed is found; return its output."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(command[0]).parent, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    (result,) = directory.iterdir()
    return result


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    information = f"ckptfmt-{ckptfmt.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"ckptfmt", "ckptfmt_cli", information}
    sources = {
        path.relative_to(base).as_posix()
        for base, package in ((ROOT, "ckptfmt"), (ROOT / "cli", "ckptfmt_cli"))
        for path in (base / package).rglob("*.py")
    }
    assert sources <= names
    assert {"ckptfmt/py.typed", "ckptfmt_cli/py.typed", f"{information}/licenses/LICENSE"} <= names
    assert {Path(name).suffix for name in names if not name.startswith(information)} == {".py", ".typed", ".css", ".js"}


def test_torch_is_asked_for_by_the_extra_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"ckptfmt-{ckptfmt.__version__}.dist-info/METADATA").decode()
    requirements = Parser().parsestr(text).get_all("Requires-Dist") or []
    assert [line for line in requirements if "torch" in line] == ["torch>=2.4; extra == 'torch'"]


ROUND_TRIP = """
import sys
import ckptfmt, numpy
assert "site-packages" in ckptfmt.__file__
weights = {"w": numpy.arange(6.0).reshape(2, 3)}
ckptfmt.save({"net": weights, "epoch": 3}, sys.argv[1])
state = ckptfmt.load(sys.argv[1])
assert state["epoch"] == 3 and (state["net"]["w"] == weights["w"]).all()
"""
IMPORT_TORCH_ADAPTER = """
import ckptfmt
try:
    import ckptfmt.torch
except ckptfmt.MissingExtraError as error:
    print(error)
"""


# One test, because the environment takes by far the most of its time.
def test_it_works_in_a_clean_environment_without_torch(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "clean", with_pip=False)
    python, ckptfmt_command = (tmp_path / "clean" / "bin" / name for name in ("python", "ckptfmt"))
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "-q")
    run(*pip, "install", "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    run(python, "-c", "import torch", code=1)

    vector = min((ROOT / "spec" / "vectors" / "valid").glob("*.ckptfmt"))
    assert run(ckptfmt_command, "--version") == f"ckptfmt {ckptfmt.__version__}\n"
    assert vector.name in run(ckptfmt_command, "inspect", vector)
    assert vector.name in run(ckptfmt_command, "verify", vector)

    run(python, "-c", ROUND_TRIP, tmp_path / "a.ckptfmt")
    assert "pip install 'ckptfmt[torch]'" in run(python, "-c", IMPORT_TORCH_ADAPTER)
