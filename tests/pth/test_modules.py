"""Whole pickled modules, TorchScript archives and checkpoints of PyTorch Lightning: weights without their classes."""

from __future__ import annotations

import sys
import types
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckptfmt
import ckptfmt.torch
from ckptfmt import Typed, UnsafeInputError
from ckptfmt._core.ops.conversion.report import ConvertReport
from tests.torch.same import same

SOURCE = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("mask", torch.ones(3))
        self.register_buffer("cache", torch.zeros(5), persistent=False)
        self.register_parameter("nothing", None)

    def forward(self, x):
        return self.linear(x) * self.mask


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.first = Block()
        self.again = self.first
        self.layers = nn.ModuleList([Block(), nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU())])
        self.weights = nn.ParameterDict({"a": nn.Parameter(torch.randn(2))})
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.first.linear.weight
        self.config = {"width": 3, "act": torch.nn.functional.relu}
        self.parent = [self]

    def forward(self, x):
        return self.tied(self.first(self.norm(x)))
"""


@pytest.fixture
def classes() -> Any:
    """Return a module with classes that exist only while a test saves their objects."""
    module = types.ModuleType("gone_package_models")
    sys.modules[module.__name__] = module
    exec(compile(SOURCE, "gone.py", "exec"), module.__dict__)
    yield module
    sys.modules.pop(module.__name__, None)


def recovered(path: Path) -> tuple[Any, ConvertReport]:
    target = path.with_suffix(".ckptfmt")
    report = ckptfmt.convert(path, target, check=True)
    return ckptfmt.torch.load(target), report


@pytest.mark.parametrize("stream", [False, True])
def test_a_whole_module_becomes_its_state_dict(tmp_path: Path, classes: Any, stream: bool) -> None:
    torch.manual_seed(0)
    net = classes.Net()
    expected = net.state_dict()
    path = tmp_path / "net.pth"
    with warnings.catch_warnings(action="ignore"):  # the source of the classes is not to be found
        torch.save(net, path, _use_new_zipfile_serialization=not stream)
    del sys.modules["gone_package_models"]
    found, report = recovered(path)
    assert report.components == ("net",)
    net = found["net"]
    assert list(net) == list(expected)
    assert same(dict(net), dict(expected))
    assert net["tied.weight"] is net["first.linear.weight"]
    assert not any("cache" in name for name in net)
    assert report.findings.modules == {"gone_package_models.Net": 1}
    assert "gone_package_models.Net" in report.findings.unknown


def test_a_whole_optimizer_is_called_after_its_role(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    torch.save(optimizer, tmp_path / "a.pth")
    found, report = recovered(tmp_path / "a.pth")
    assert report.components == ("optimizer",)
    assert found["optimizer"]["param_groups"][0]["lr"] == 0.1


def test_a_mapping_of_modules_keeps_its_names(tmp_path: Path) -> None:
    torch.save(OrderedDict(model=torch.nn.Linear(2, 2)), tmp_path / "a.pth")
    _, report = recovered(tmp_path / "a.pth")
    assert report.components == ("model",)


def test_a_module_among_other_things(tmp_path: Path, classes: Any) -> None:
    net = classes.Net()
    torch.save({"model": net, "ema": net.first, "epoch": 3}, tmp_path / "net.pth")
    found, report = recovered(tmp_path / "net.pth")
    assert same(dict(found["model"]), dict(net.state_dict()))
    assert same(dict(found["ema"]), dict(net.first.state_dict()))
    assert report.epoch == 4


def test_strict_refuses_a_module_of_a_package_and_takes_one_of_pytorch(tmp_path: Path, classes: Any) -> None:
    torch.save(classes.Net(), tmp_path / "net.pth")
    with pytest.raises(UnsafeInputError, match=r"gone_package_models\.Net"):
        ckptfmt.convert(tmp_path / "net.pth", tmp_path / "net.ckptfmt", strict=True)
    assert not (tmp_path / "net.ckptfmt").exists()
    net = nn.Sequential(
        nn.Linear(2, 2), nn.Dropout(0.1), nn.LSTM(2, 2), nn.TransformerEncoderLayer(2, 1, batch_first=True)
    )
    torch.save(net, tmp_path / "known.pth")
    ckptfmt.convert(tmp_path / "known.pth", tmp_path / "known.ckptfmt", strict=True)
    assert same(dict(ckptfmt.torch.load(tmp_path / "known.ckptfmt")["net"]), dict(net.state_dict()))


def test_a_whole_optimizer_becomes_its_state_dict(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    groups: list[dict[str, Any]] = [{"params": [net.weight]}, {"params": [net.bias], "lr": 0.5}]
    optimizer = torch.optim.AdamW(groups)
    net(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    torch.save({"net": net, "optimizer": optimizer}, tmp_path / "a.pth")
    found, report = recovered(tmp_path / "a.pth")
    expected = optimizer.state_dict()
    assert same(found["optimizer"]["state"], expected["state"])
    for group, wanted in zip(found["optimizer"]["param_groups"], expected["param_groups"], strict=True):
        assert {name: group[name] for name in wanted} == wanted
    other_groups: list[dict[str, Any]] = [{"params": [net.weight]}, {"params": [net.bias]}]
    again = torch.optim.AdamW(other_groups)
    again.load_state_dict(found["optimizer"])
    assert same(again.state_dict(), expected)
    assert report.findings.modules["torch.optim.adamw.AdamW"] == 1


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_gives_its_weights_and_leaves_its_code(tmp_path: Path, classes: Any, how: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 2), nn.ReLU())).eval()
    with warnings.catch_warnings(action="ignore"):  # TorchScript is given up
        made: Any = torch.jit.script(net) if how == "script" else torch.jit.trace(net, torch.randn(2, 3))  # type: ignore[no-untyped-call]  # PyTorch's own
        made.save(str(tmp_path / "a.pt"))
    found, report = recovered(tmp_path / "a.pt")
    assert same(dict(found["net"]), dict(net.state_dict()))
    assert report.form == "pth torchscript"
    code = [item for item in report.findings.dropped if item.what.startswith("code/")]
    assert code
    assert all("code" in item.why for item in code)


def test_a_checkpoint_of_lightning(tmp_path: Path, classes: Any) -> None:
    attributes = types.ModuleType("pytorch_lightning_gone")
    sys.modules[attributes.__name__] = attributes
    exec("class AttributeDict(dict): pass\nclass ModelCheckpoint: pass", attributes.__dict__)
    for name in ("AttributeDict", "ModelCheckpoint"):
        getattr(attributes, name).__module__ = attributes.__name__
    net = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    state = {
        "epoch": 7,
        "global_step": 640,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": net.state_dict(),
        # At the end of an epoch, the callback that saves is called before the epoch counts as completed.
        "loops": {"fit_loop": {"epoch_progress": {"current": {"ready": 8, "processed": 8, "completed": 7}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5), "kth": {}}},
        attributes.ModelCheckpoint: {"old": "key"},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": attributes.AttributeDict(lr=0.1, layers=[1, 2]),
    }
    state.pop(attributes.ModelCheckpoint)
    torch.save(state, tmp_path / "last.ckpt")
    del sys.modules["pytorch_lightning_gone"]
    found, report = recovered(tmp_path / "last.ckpt")
    assert list(found) == list(state)
    assert same(found["state_dict"], net.state_dict())
    assert same(found["optimizer_states"], [optimizer.state_dict()])
    assert found["hyper_parameters"] == Typed(
        "pytorch_lightning_gone.AttributeDict", {"items": {"lr": 0.1, "layers": [1, 2]}}
    )
    assert (report.epoch, report.step) == (8, 640)
    assert report.findings.producer == "PyTorch Lightning 2.4.0"


def test_objects_that_know_their_parent_are_cut_there(tmp_path: Path, classes: Any) -> None:
    exec("class Trainer: pass", classes.__dict__)
    classes.Trainer.__module__ = classes.__name__
    trainer = classes.Trainer()
    trainer.callback = classes.Trainer()
    trainer.callback.trainer = trainer
    trainer.rate = 0.1
    torch.save({"trainer": trainer, "epoch": 1}, tmp_path / "a.pth")
    found, report = recovered(tmp_path / "a.pth")
    name = "gone_package_models.Trainer"
    assert found["trainer"] == Typed(name, {"callback": Typed(name, {"trainer": None}), "rate": 0.1})
    assert any("part of itself" in item.why for item in report.findings.dropped)
