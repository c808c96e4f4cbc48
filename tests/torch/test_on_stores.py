"""States of PyTorch in a store that is unlike a disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ckptfmt.torch
from ckptfmt._core.storage.resolve import store_for
from ckptfmt.errors import StorageError
from ckptfmt.testing.stores import publish


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/runs"


def model(seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(30, 20)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_states_are_saved_loaded_restored_and_started_from_there(place: str) -> None:
    net = model(1)
    report = ckptfmt.torch.save({"net": net.state_dict()}, f"{place}/a.ckptfmt", step=3)
    assert torch.equal(ckptfmt.torch.load(report.path)["net"]["weight"], net.weight)
    restored, started = model(2), model(3)
    ckptfmt.torch.restore(report.path, {"net": restored})
    ckptfmt.torch.warm_start(report.path, {"net": started})
    assert same(restored, net)
    assert same(started, net)


def test_a_file_of_pytorch_is_started_from_there(place: str, tmp_path: Path) -> None:
    net, started = model(1), model(2)
    torch.save(net.state_dict(), tmp_path / "a.pth")
    publish(store_for(place), "a.pth", (tmp_path / "a.pth").read_bytes())
    ckptfmt.torch.warm_start(f"{place}/a.pth", {"net": started})
    assert same(started, net)


def test_what_is_not_there_is_told_by_name(place: str) -> None:
    for act in (ckptfmt.torch.restore, ckptfmt.torch.warm_start):
        with pytest.raises(StorageError, match=f"{place}/a.ckptfmt"):
            act(f"{place}/a.ckptfmt", {"net": model(1)})
