"""What all tests of `ckptfmt.torch` need."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Several test processes with several threads each only stand in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["directory", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new place for a run: a directory, and a store that is unlike a disk."""
    if request.param == "memory":
        return f"memory://{tmp_path.parent.name}/{tmp_path.name}"
    directory = tmp_path / "runs"
    directory.mkdir()
    return str(directory)
