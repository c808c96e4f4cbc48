"""Checkpoints in the formats of others, read back by those who made the formats."""

from __future__ import annotations

import errno
import functools
import json
import os
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt._core.container.planning import MemberPlan, fixed_part
from ckptfmt._core.container.writer import write_file
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.packing import TensorRef, Typed, encode
from ckptfmt._core.format.tensors import plan_header
from ckptfmt._core.interop.writers.base import Request
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt.errors import ExportError, IntegrityError, NotFoundError, StorageError
from ckptfmt.torch import Checkpointer
from tests.pth import legacy_files
from tests.torch.same import same

TIED = torch.arange(6.0).reshape(2, 3)
STATE: dict[str, Any] = {
    "net": legacy_files.documented()["net"],
    "tied": {"wte": TIED, "head": TIED, "bias": torch.zeros(2)},
    "optimizer": legacy_files.documented()["optimizer"],
    "epoch": 4,
    "plain": {
        "none": None,
        "numbers": [0, -1, 300, 2**40, -(2**70), 1.5, True, 2j],
        "text": "Grüße",
        "bytes": b"\x00\xff",
        "tuple": (1, (2, ())),
        "set": {1, "a"},
        "keys": {1: "a", 2.5: "b", None: "c"},
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda", 1),
        "long": list(range(3000)),
        "wide": {str(number): number for number in range(3000)},
    },
    "every": legacy_files.of_every_dtype(),
    "empty": {"a": torch.empty(0, 3), "b": torch.tensor(1.0)},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.torch.save(STATE, path)
    return path


def test_pth_is_loaded_by_the_loader_for_weights(checkpoint: Path, tmp_path: Path) -> None:
    report = ckptfmt.export(checkpoint, tmp_path / "a.pth", check=True)
    for options in ({}, {"mmap": True}):
        with warnings.catch_warnings(action="ignore"):  # some dtypes are called new
            found = torch.load(tmp_path / "a.pth", weights_only=True, **options)  # type: ignore[arg-type]  # they are
        assert same(found, STATE)
        assert found["tied"]["wte"] is found["tied"]["head"]
    assert found["net"]._metadata["1"] == {"version": 2}
    assert report.findings.notes == ()
    assert report.target_bytes == (tmp_path / "a.pth").stat().st_size


def test_pth_of_what_the_loader_has_nothing_for_is_the_nearest_and_said(tmp_path: Path) -> None:
    state = {"a": {"array": np.arange(3.0), "scalar": np.float32(1.5), "frozen": frozenset({1})}, "epoch": 1}
    ckptfmt.torch.save(state, tmp_path / "a.ckptfmt")
    report = ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / "a.pth", check=True)
    found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert same(found["a"], {"array": torch.arange(3.0, dtype=torch.float64), "scalar": 1.5, "frozen": {1}})
    assert len(report.findings.notes) == 3


def test_sparse_and_quantized_tensors_come_back(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # PyTorch gives quantized tensors up, and calls layouts new
        state = {
            "coo": torch.eye(3).to_sparse(),
            "csr": torch.eye(3).to_sparse_csr(),
            "q": torch.quantize_per_tensor(torch.randn(2, 3), 0.1, 2, torch.quint8),
            "qc": torch.quantize_per_channel(
                torch.randn(2, 3), torch.rand(2).double(), torch.zeros(2).long(), 0, torch.qint8
            ),
            "epoch": 1,
        }
        legacy_files.save(state, tmp_path / "a.pth")
        ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
        ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / "b.pth")
        found = torch.load(tmp_path / "b.pth", weights_only=True)
        assert same(found["coo"], state["coo"])
        assert same(found["csr"], state["csr"])
        for name in ("q", "qc"):
            assert torch.equal(found[name], state[name])  # type: ignore[arg-type]  # tensors
            assert same(found[name].int_repr(), state[name].int_repr())  # type: ignore[attr-defined]  # tensors


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, first: int, epochs: int) -> list[float]:
    """The documented loop: the losses of its epochs, each with its own batches."""
    losses = []
    for epoch in range(first, epochs):
        torch.manual_seed(epoch)
        for _ in range(3):
            optimizer.zero_grad()
            loss = net(torch.randn(8, 6)).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    return losses


def fresh() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(9)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    return net, torch.optim.AdamW(net.parameters(), lr=0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_the_documented_loop_resumes_identically_from_pth_to_ours_to_pth(tmp_path: Path, stream: bool) -> None:
    net, optimizer = fresh()
    train(net, optimizer, 0, 3)
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2}
    legacy_files.save(state, tmp_path / "ckpt_best_2.pth", stream=stream)
    expected = train(net, optimizer, 3, 6)

    ckptfmt.convert(tmp_path / "ckpt_best_2.pth", tmp_path / "a.ckptfmt")
    ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / "again.pth", check=True)
    saved = torch.load(tmp_path / "again.pth")
    assert same(saved, torch.load(tmp_path / "ckpt_best_2.pth"))
    again, its_optimizer = fresh()
    again.load_state_dict(saved["net"])
    its_optimizer.load_state_dict(saved["optimizer"])
    assert train(again, its_optimizer, saved["epoch"] + 1, 6) == expected
    assert same(dict(again.state_dict()), dict(net.state_dict()))


def test_a_checkpoint_of_the_training_loop_goes_on_in_the_documented_one(tmp_path: Path) -> None:
    net, optimizer = fresh()
    checkpointer = Checkpointer(tmp_path, {"net": net, "optimizer": optimizer})
    checkpointer.resume(quiet=True)
    for epoch in checkpointer.epochs(3):
        train(net, optimizer, epoch, epoch + 1)
        checkpointer.end_epoch()
    expected = train(net, optimizer, 3, 5)
    newest = max(tmp_path.glob("*.ckptfmt"), key=lambda path: path.stat().st_mtime_ns)
    ckptfmt.export(newest, tmp_path / "last.pth", check=True)
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    assert saved["epoch"] == 2
    again, its_optimizer = fresh()
    again.load_state_dict(saved["net"])
    its_optimizer.load_state_dict(saved["optimizer"])
    assert train(again, its_optimizer, saved["epoch"] + 1, 5) == expected


@pytest.mark.parametrize("how", ["convert", "convert into the run", "save", "pth"])
def test_a_checkpoint_of_the_documented_loop_goes_on_in_the_training_loop(tmp_path: Path, how: str) -> None:
    """However it came here, it trains the epochs that the documented loop would, and ends with the same bits."""
    net, optimizer = fresh()
    train(net, optimizer, 0, 3)
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2}
    torch.save(state, tmp_path / "ckpt_best_2.pth")
    ckptfmt.torch.save(state, tmp_path / "saved.ckptfmt")
    ckptfmt.convert(tmp_path / "ckpt_best_2.pth", tmp_path / "converted.ckptfmt")
    expected = train(net, optimizer, 3, 6)

    run = tmp_path / "run"
    run.mkdir()
    if how == "convert into the run":
        ckptfmt.convert(tmp_path / "ckpt_best_2.pth", run / "a.ckptfmt", run_id="mine")
    elif how == "pth":
        torch.save(torch.load(tmp_path / "ckpt_best_2.pth"), run / "ckpt_best_2.pth")
    path = {"convert": tmp_path / "converted.ckptfmt", "save": tmp_path / "saved.ckptfmt"}.get(how)
    again, its_optimizer = fresh()
    checkpointer = Checkpointer(run, {"net": again, "optimizer": its_optimizer}, run_id="mine")
    checkpointer.resume(path or "must", quiet=True, allow_mismatch=["rng"])
    losses, epochs = [], []
    for epoch in checkpointer.epochs(6):
        epochs.append(epoch)
        losses += train(again, its_optimizer, epoch, epoch + 1)
        checkpointer.end_epoch()
    assert epochs == [3, 4, 5]
    assert losses == expected
    assert same(dict(again.state_dict()), dict(net.state_dict()))


@pytest.mark.parametrize("name", ["every", "net", "optimizer", "plain"])
def test_a_component_alone_is_checked(checkpoint: Path, tmp_path: Path, name: str) -> None:
    report = ckptfmt.export(checkpoint, tmp_path / "a.pth", component=name, check=True)
    assert report.compared == report.tensors


@pytest.mark.parametrize("target", ["a.pth", "a.safetensors", "a.npz", "model"])
def test_a_check_finds_what_was_not_written_as_it_was(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckptfmt.save({"net": {"w": np.arange(100.0)}}, tmp_path / "a.ckptfmt")
    assert ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / f"good-{target}", check=True).compared == 1
    given = Request.data_of
    monkeypatch.delattr(os, "copy_file_range", raising=False)  # so that all goes by way of this process
    monkeypatch.setattr(Request, "data_of", lambda *its: (bytes(data)[::-1] for data in given(*its)))
    with pytest.raises(IntegrityError) as caught:
        ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / target, check=True)
    assert {problem.tensor for problem in caught.value.problems} == {"w"}


def test_safetensors_of_one_component(checkpoint: Path, tmp_path: Path) -> None:
    ckptfmt.export(checkpoint, tmp_path / "net.safetensors", check=True)
    assert same(
        dict(STATE["net"]),
        {name: safetensors.torch.load_file(tmp_path / "net.safetensors")[name] for name in STATE["net"]},
    )
    with safetensors.safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
    ckptfmt.export(checkpoint, tmp_path / "tied.safetensors", component="tied", check=True)
    found = safetensors.torch.load_file(tmp_path / "tied.safetensors")
    assert same({name: found[name] for name in STATE["tied"]}, STATE["tied"])
    ckptfmt.export(checkpoint, tmp_path / "opt.safetensors", component="optimizer", check=True)
    found = safetensors.torch.load_file(tmp_path / "opt.safetensors")
    assert same(found["state.0.exp_avg"], STATE["optimizer"]["state"][0]["exp_avg"])


def test_npz(checkpoint: Path, tmp_path: Path) -> None:
    ckptfmt.export(checkpoint, tmp_path / "net.npz", component="net", check=True)
    with np.load(tmp_path / "net.npz") as found:
        assert list(found) == list(STATE["net"])
        for name, tensor in STATE["net"].items():
            assert found[name].dtype == tensor.numpy().dtype
            assert np.array_equal(found[name], tensor.numpy())
    with pytest.raises(ExportError, match="BF16"):
        ckptfmt.export(checkpoint, tmp_path / "every.npz", component="every")
    assert not (tmp_path / "every.npz").exists()
    ckptfmt.convert(tmp_path / "net.npz", tmp_path / "again.ckptfmt", check=True)


def test_npz_of_complex_numbers(tmp_path: Path) -> None:
    arrays = {"a": np.array([1 + 2j, 3]), "b": np.ones(2, np.float32)}
    ckptfmt.save({"net": arrays, "epoch": 1}, tmp_path / "a.ckptfmt")
    ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / "a.npz", check=True)
    with np.load(tmp_path / "a.npz") as found:
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_shards_and_their_index(checkpoint: Path, tmp_path: Path) -> None:
    report = ckptfmt.export(checkpoint, tmp_path / "model", component="net", shard_bytes=100, check=True)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert list(index["weight_map"]) == list(STATE["net"])
    found = {}
    for name, shard in index["weight_map"].items():
        found[name] = safetensors.torch.load_file(tmp_path / "model" / shard)[name]
    assert same(found, dict(STATE["net"]))
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    assert report.target_bytes == sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    ckptfmt.convert(tmp_path / "model", tmp_path / "again.ckptfmt")
    assert same(dict(ckptfmt.torch.load(tmp_path / "again.ckptfmt")["net"]), dict(STATE["net"]))


def test_one_shard_needs_no_index_and_a_config_comes_along(tmp_path: Path) -> None:
    ckptfmt.torch.save({"net": STATE["net"], "config": {"hidden_size": 6}}, tmp_path / "a.ckptfmt")
    ckptfmt.export(tmp_path / "a.ckptfmt", f"{tmp_path}/model/", check=True)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == {"hidden_size": 6}


def test_a_directory_with_something_in_it_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("precious")
    with pytest.raises(StorageError, match=re.escape(str(tmp_path / "model"))):
        ckptfmt.export(checkpoint, tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["mine"]


@pytest.mark.parametrize("target", ["b.pth", "b.safetensors", "b.npz", "model"])
def test_damage_is_found_and_nothing_is_written(checkpoint: Path, tmp_path: Path, target: str) -> None:
    data = bytearray(checkpoint.read_bytes())
    data[data.index(STATE["net"]["0.weight"].numpy().tobytes())] ^= 1
    checkpoint.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"0\.weight"):
        ckptfmt.export(checkpoint, tmp_path / target, component="net")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckptfmt"]


def test_what_is_not_clear_or_not_there_is_said(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'nte'"):
        ckptfmt.export(checkpoint, tmp_path / "a.safetensors", component="nte")
    ckptfmt.torch.save({"generator": STATE["net"], "critic": STATE["net"]}, tmp_path / "gan.ckptfmt")
    with pytest.raises(ExportError, match="generator, critic"):
        ckptfmt.export(tmp_path / "gan.ckptfmt", tmp_path / "a.safetensors")
    with pytest.raises(ExportError, match="plain"):
        ckptfmt.export(checkpoint, tmp_path / "a.safetensors", component="plain")
    with pytest.raises(ExportError, match="convert"):
        ckptfmt.export(checkpoint, tmp_path / "b.ckptfmt")
    with pytest.raises(StorageError, match=checkpoint.name):
        ckptfmt.export(checkpoint, checkpoint, form="pth")


@pytest.mark.parametrize("offered", [True, False])
def test_a_member_is_copied_by_the_system_where_it_can(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: bool
) -> None:
    whole_copy = getattr(os, "copy_file_range", None)
    if whole_copy is None:
        pytest.skip("this system has no copy_file_range")
    copies = []

    def copy(*arguments: int) -> int:
        copies.append(arguments)
        if not offered and len(copies) > 1:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        # Half of it, so that what is done twice or not at all shows.
        source, target, nbytes, start, place = arguments
        count: int = whole_copy(source, target, -(-nbytes // 2), start, place)
        return count

    monkeypatch.setattr(os, "copy_file_range", copy)
    ckptfmt.export(checkpoint, tmp_path / "net.safetensors", component="net")
    assert copies
    loaded = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert same(loaded, dict(STATE["net"]))


@pytest.mark.parametrize("place", ["header", "data"])
def test_what_the_system_copies_is_verified(checkpoint: Path, tmp_path: Path, place: str) -> None:
    with ckptfmt.open(checkpoint) as opened:
        member = opened["net"].tensor_member
        assert member is not None
        at = member.offset + (member.segments[0].nbytes - 1 if place == "header" else member.logical_bytes - 1)
    damaged = bytearray(checkpoint.read_bytes())
    damaged[at] ^= 1
    checkpoint.write_bytes(damaged)
    with pytest.raises(IntegrityError):
        ckptfmt.export(checkpoint, tmp_path / "net.safetensors", component="net")
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_names_that_stand_for_other_tensors_are_not_copied_as_they_lie(tmp_path: Path) -> None:
    values = {"a": b"\1\2\3", "b": b"\4\5\6"}
    header = plan_header([(name, "U8", (3,)) for name in values], None)
    members = [
        MemberPlan("net.msgpack", "none", None, [fixed_part(encode({"a": TensorRef("b"), "b": TensorRef("a")}))]),
        MemberPlan("net.safetensors", "none", header, [fixed_part(header.block()), *map(fixed_part, values.values())]),
    ]
    with AtomicFile(tmp_path / "a.ckptfmt") as file:
        write_file(file, members, Metadata())
        file.commit()
    ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / "net.safetensors", component="net")
    loaded = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {"a": [4, 5, 6], "b": [1, 2, 3]}


def test_export_needs_no_pytorch(checkpoint: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, ckptfmt\n"
        "for target in ('b.pth', 'b.safetensors', 'model'): ckptfmt.export(sys.argv[1], sys.argv[2] + '/' + target, "
        "component='net')\n"
        "ckptfmt.convert(sys.argv[2] + '/b.pth', sys.argv[2] + '/b.ckptfmt')\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(checkpoint), str(tmp_path)], check=True)


def test_no_name_is_written_that_the_loader_of_weights_does_not_know() -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    from ckptfmt._core.interop.writers.pickling import WRITABLE

    assert set(_get_allowed_globals()) >= WRITABLE


def test_inert_data_do_not_come_alive_again(tmp_path: Path) -> None:
    """Whatever a value calls itself, an exported file names nothing but what weights need, and loads as data."""

    state = {
        "a": functools.partial(print, "x"),
        "b": re.compile("y"),
        "c": ValueError("z"),
        "net": {"w": torch.ones(2)},
    }
    torch.save(state, tmp_path / "a.pth")
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt", inert=["builtins.print"])
    ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "b.pth") as archive:
        content = archive.read("b/data.pkl")
    names = {
        str(argument).replace(" ", ".") for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"
    }
    assert names <= {"torch._utils._rebuild_tensor_v2", "torch.FloatStorage", "collections.OrderedDict"}
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert again["b"] == {"pattern": "y", "flags": 32}
    assert again["a"] == {"function": "builtins.print", "args": ["x"], "kwargs": {}}


@pytest.mark.parametrize("scheme", ["load", "per_tensor_affine\nX\ncos\nsystem\n", "", None])
def test_a_quantized_tensor_of_another_scheme_is_refused(tmp_path: Path, scheme: str | None) -> None:
    value = Typed(
        "torch.quantized",
        {
            "dtype": "qint8",
            "int_repr": torch.ones(2, dtype=torch.int8),
            "scheme": scheme,
            "scale": 1.0,
            "zero_point": 0,
        },
    )
    ckptfmt.torch.save({"x": {"q": value}}, tmp_path / "a.ckptfmt")
    with pytest.raises(ckptfmt.StateError, match="scheme"):
        ckptfmt.export(tmp_path / "a.ckptfmt", tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()
