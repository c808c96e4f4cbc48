"""`ckptfmt.torch.save` and `load` in place of `torch.save` and `torch.load`."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ckptfmt
import ckptfmt.torch
from ckptfmt import IntegrityError
from tests.torch.same import same
from tests.torch.training import dense_net, through_ckptfmt, through_pickle, train


def checkpoint_dict() -> dict[str, Any]:
    """Return what training scripts save."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    net(torch.randn(3, 1, 5, 5))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    train(net, optimizer, range(2), lambda net, step: net(torch.randn(3, 1, 5, 5)).square().mean())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "epoch": 3,
        "best": np.float64(0.25),
        "history": [(0, 0.5), (1, float("nan"))],
        "rng": torch.get_rng_state(),
        "args": {"lr": 1e-3, "milestones": [1, 2], "name": "ünï", "resume": None, "seed": 2**80},
        "by_class": defaultdict(list, {0: [1], 7: [2, 3]}),
        "confusion": np.eye(3, dtype=np.int64),
    }


def test_a_checkpoint_dict_comes_back_as_from_torch_load(tmp_path: Path) -> None:
    state = checkpoint_dict()
    loaded = through_ckptfmt(state, tmp_path / "a.ckptfmt")
    assert same(loaded, state)
    assert same(loaded, through_pickle(state, tmp_path / "a.pth"))
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert checkpoint.metadata.epoch == 4
        assert checkpoint["net"].flat


def test_facts_are_noted_as_given(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    report = ckptfmt.torch.save({"n": 1}, path, step=7, epoch=2, metrics={"acc": 0.5}, run_id="r", user={"k": [1]})
    ckptfmt.torch.save({"n": 1}, tmp_path / "b.ckptfmt", parent=report.identity, codec="zstd")
    with ckptfmt.torch.open(path) as one, ckptfmt.torch.open(tmp_path / "b.ckptfmt") as two:
        facts = one.metadata
        assert (facts.step, facts.epoch, facts.metrics, facts.run_id, facts.user) == (
            7,
            2,
            {"acc": 0.5},
            "r",
            {"k": [1]},
        )
        assert two.metadata.parent == bytes.fromhex(one.identity)


def test_one_tensor_is_read_alone(tmp_path: Path) -> None:
    weight = torch.arange(6.0, dtype=torch.bfloat16).view(2, 3)
    ckptfmt.torch.save({"net": {"w": weight, "b": torch.ones(1)}}, tmp_path / "a.ckptfmt")
    with ckptfmt.torch.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert same(checkpoint["net"]["w"], weight)


def test_a_bare_state_dict_loads_into_its_module(tmp_path: Path) -> None:
    net, other = dense_net(0), dense_net(1)
    ckptfmt.torch.save(net.state_dict(), tmp_path / "a.ckptfmt")
    other.load_state_dict(ckptfmt.torch.load(tmp_path / "a.ckptfmt"))
    assert same(other.state_dict(), net.state_dict())


@pytest.mark.parametrize(
    "state", [[torch.ones(2), {"a": (1, torch.zeros(1))}], torch.ones(3), 5, {}, {1: torch.ones(1)}]
)
def test_any_object_that_can_be_expressed_will_do(tmp_path: Path, state: Any) -> None:
    ckptfmt.torch.save(state, tmp_path / "a.ckptfmt")
    assert same(ckptfmt.torch.load(tmp_path / "a.ckptfmt"), state)


class Versioned(nn.Module):
    """A module that notes which version it is asked to load."""

    _version = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.inner = nn.Linear(1, 1)
        self.asked: object = None

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        self.asked = local_metadata.get("version")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_modules_are_told_the_version_that_was_saved(tmp_path: Path, bare: bool, tied: bool) -> None:
    net = nn.ModuleDict({"one": Versioned(), "norms": nn.ModuleList([nn.BatchNorm1d(2)])})
    if tied:
        net["two"] = net["one"]
    saved: Any = net.state_dict()
    ckptfmt.torch.save(saved if bare else {"net": saved, "epoch": 1}, tmp_path / "a.ckptfmt")
    loaded = ckptfmt.torch.load(tmp_path / "a.ckptfmt")
    state_dict = loaded if bare else loaded["net"]
    versions = {path: facts for path, facts in saved._metadata.items() if path != "norms"}
    assert {path: state_dict._metadata[path] for path in versions} == versions
    net.load_state_dict(state_dict)
    one = net["one"]
    assert isinstance(one, Versioned)
    assert one.asked == 3


def test_a_plain_dict_stays_a_plain_dict(tmp_path: Path) -> None:
    loaded = through_ckptfmt({"net": OrderedDict(w=torch.ones(1))}, tmp_path / "a.ckptfmt")
    assert type(loaded["net"]) is dict


def test_map_location_of_none_leaves_tensors_on_the_cpu(tmp_path: Path) -> None:
    ckptfmt.torch.save({"w": {"a": torch.ones(1)}}, tmp_path / "a.ckptfmt")
    assert ckptfmt.torch.load(tmp_path / "a.ckptfmt")["w"]["a"].device == torch.device("cpu")


@pytest.mark.parametrize("location", ["meta", torch.device("meta"), {"cpu": "meta"}], ids=str)
def test_map_location_moves_every_tensor(tmp_path: Path, location: Any) -> None:
    weight = torch.ones(2)
    state = {
        "net": {"a": weight, "b": weight, "c": torch.zeros(1)},
        "more": [(torch.zeros(1), 1), {2: torch.ones(1, dtype=torch.complex128)}],
        "array": np.ones(2),
    }
    ckptfmt.torch.save(state, tmp_path / "a.ckptfmt")
    loaded = ckptfmt.torch.load(tmp_path / "a.ckptfmt", map_location=location)
    moved = [*loaded["net"].values(), loaded["more"][0][0], loaded["more"][1][2]]
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert loaded["net"]["a"] is loaded["net"]["b"]
    assert same(loaded["array"], np.ones(2))


def test_map_location_keeps_the_versions_of_modules(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(2).state_dict()
    ckptfmt.torch.save(state, tmp_path / "a.ckptfmt")
    assert ckptfmt.torch.load(tmp_path / "a.ckptfmt", map_location="meta")._metadata[""] == {"version": 2}


def test_map_location_that_does_not_name_the_cpu_moves_nothing(tmp_path: Path) -> None:
    ckptfmt.torch.save({"w": {"a": torch.ones(1)}}, tmp_path / "a.ckptfmt")
    loaded = ckptfmt.torch.load(tmp_path / "a.ckptfmt", {"cuda:1": "cuda:0"})
    assert loaded["w"]["a"].device == torch.device("cpu")


def test_map_location_as_a_function_gets_each_storage(tmp_path: Path) -> None:
    shape = torch.arange(6.0).view(2, 3)
    ckptfmt.torch.save({"w": {"a": shape, "b": torch.ones(3, dtype=torch.int8)}}, tmp_path / "a.ckptfmt")
    calls = []

    def location(storage: torch.UntypedStorage, saved: str) -> torch.UntypedStorage | None:
        calls.append((storage.nbytes(), saved))
        return storage.clone() if storage.nbytes() == 24 else None  # type: ignore[no-untyped-call]  # no annotations

    loaded = ckptfmt.torch.load(tmp_path / "a.ckptfmt", map_location=location)
    assert sorted(calls) == [(3, "cpu"), (24, "cpu")]
    assert same(loaded, {"w": {"a": shape, "b": torch.ones(3, dtype=torch.int8)}})


def test_a_flipped_bit_is_an_error_and_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.torch.save({"net": {"w": torch.zeros(1000)}}, path)
    data = bytearray(path.read_bytes())
    data[9000] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="'w'"):
        ckptfmt.torch.load(path)


def test_without_pytorch_the_error_says_what_to_install() -> None:
    script = """
import sys
sys.modules["torch"] = None
import ckptfmt
try:
    import ckptfmt.torch
except ckptfmt.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'ckptfmt[torch]'" in done.stdout
