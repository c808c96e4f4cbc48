"""`ckptfmt.torch.load` in place of `torch.load`, whose safe mode is the oracle; and `save` to open files."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import io
import json
import os
import random
import sys
import warnings
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ckptfmt.torch
from ckptfmt import PerRank, Typed
from ckptfmt._core.container.state.cures import replacement
from ckptfmt.errors import (
    CkptfmtError,
    ForeignFileError,
    FormatError,
    MismatchError,
    StateError,
    StorageError,
    UnsafeInputError,
    UnsupportedFileError,
    UsageError,
)
from tests.torch.same import same
from tests.torch.test_file_states import dtypes, large, layouts, plain


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of complex halves
        yield


def trained() -> dict[str, Any]:
    """Return what a training script saves."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    for _ in range(3):
        net(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
    return {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": 3,
        "rng": [torch.get_rng_state(), random.Random(1).getstate()],
    }


STATES: dict[str, Callable[[], Any]] = {
    "dtypes": dtypes,
    "layouts": layouts,
    "large": large,
    "plain": plain,
    "trained": trained,
    "bare state dict": lambda: nn.BatchNorm1d(2).state_dict(),
    "tensor": lambda: torch.ones(3),
    "parameter": lambda: nn.Parameter(torch.ones(3)),
    "number": lambda: 5,
    "nothing": lambda: None,
    "empty": dict,
    "list": lambda: [1, torch.ones(1)],
    "counter": lambda: Counter("aab"),
    "ordered": lambda: OrderedDict(b=1, a=2),
    "set": lambda: {1, 2},
    "huge number": lambda: {"n": 2**100, "z": 1j},
    "keys": lambda: {1: torch.ones(1), None: 2, 2.5: 3, "a": 4},
    "sizes": lambda: {"size": torch.Size([1]), "dtype": torch.bfloat16, "device": torch.device("cpu")},
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("form", ["zip", "stream", "native", "bytes", "file", "mapped"])
def test_it_returns_what_torch_load_returns(tmp_path: Path, name: str, form: str) -> None:
    state = STATES[name]()
    path = tmp_path / "a.pth"
    torch.save(state, path)
    expected = torch.load(path, weights_only=True)
    match form:
        case "native":
            ckptfmt.torch.save(state, path)
        case "stream":
            torch.save(state, path, _use_new_zipfile_serialization=False)
    match form:
        case "bytes":
            buffer = io.BytesIO()
            ckptfmt.torch.save(state, buffer)
            buffer.seek(0)
            found = ckptfmt.torch.load(buffer, weights_only=True)
        case "file":
            with path.open("rb") as file:
                found = ckptfmt.torch.load(file, "cpu", weights_only=None)
        case "mapped":
            found = ckptfmt.torch.load(path, mmap=True)
        case _:
            found = ckptfmt.torch.load(path)
    assert same(found, expected)


def test_what_torch_load_refuses_as_numpy_is_read(tmp_path: Path) -> None:
    state = {"array": np.arange(3), "number": np.float64(0.5), "words": defaultdict(list, a=[1])}
    torch.save(state, tmp_path / "a.pth")
    assert same(ckptfmt.torch.load(tmp_path / "a.pth"), state)


class Colour(enum.Enum):
    RED = "r"


@dataclasses.dataclass
class Config:
    lr: float = 0.1


Pair = namedtuple("Pair", "a b")
OBJECTS: dict[str, tuple[Any, str]] = {
    "Namespace": (argparse.Namespace(lr=0.1), "argparse.Namespace"),
    "dataclass": (Config(), f"{Config.__module__}.Config"),
    "Path": (Path("a/b"), "pathlib.PosixPath"),
    "Enum": (Colour.RED, f"{Colour.__module__}.Colour"),
    "namedtuple": (Pair(1, 2), f"{Pair.__module__}.Pair"),
    "deque": (deque([1]), "collections.deque"),
    "range": (range(3), "builtins.range"),
}


@pytest.mark.skipif(os.name == "nt", reason="the class of a path has another name")
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_in_a_pickle_is_refused_until_it_is_named(tmp_path: Path, name: str) -> None:
    value, kind = OBJECTS[name]
    torch.save({"args": value, "net": {"w": torch.ones(2)}}, tmp_path / "a.pth")
    with pytest.raises(UnsupportedFileError, match=kind):
        ckptfmt.torch.load(tmp_path / "a.pth")
    found = ckptfmt.torch.load(tmp_path / "a.pth", inert=[kind])
    assert isinstance(found["args"], Typed)
    assert found["args"].name == kind
    assert same(found["net"], {"w": torch.ones(2)})


def test_tensors_in_a_named_object_are_tensors(tmp_path: Path) -> None:
    torch.save(argparse.Namespace(w=torch.ones(2)), tmp_path / "a.pth")
    found = ckptfmt.torch.load(tmp_path / "a.pth", inert=["argparse.Namespace"])
    assert same(found.value["w"], torch.ones(2))


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_code_is_refused(tmp_path: Path) -> None:
    torch.save(Runs(), tmp_path / "a.pth")
    with pytest.raises(UnsafeInputError):
        ckptfmt.torch.load(tmp_path / "a.pth", weights_only=True)


def test_weights_only_false_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(UsageError):
        ckptfmt.torch.load(tmp_path / "a.pth", weights_only=False)


@pytest.mark.parametrize(
    "value",
    [
        *(value for value, _ in OBJECTS.values()),
        *(SimpleNamespace(a=1), bytearray(b"ab"), len, int, Colour, nn.Linear(1, 1), random.Random.seed),
        *(type("Text", (str,), {})("a"), type("Number", (float,), {})(1.5), type("Whole", (int,), {})(1)),
        *(type("Items", (list,), {})([1]), type("Kinds", (set,), {})([1]), type("Parts", (tuple,), {})([1])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_expression_in_the_refusal_can_be_saved(tmp_path: Path, value: Any) -> None:
    with pytest.raises(StateError) as refused:
        ckptfmt.torch.save({"run": {"args": value, "w": torch.ones(1)}}, tmp_path / "a.ckptfmt")
    assert refused.value.path == "run.args"
    expression = replacement(value, "args")
    assert expression is not None
    if not isinstance(value, nn.Module):  # whose refusal comes from the adapter of PyTorch
        assert expression in str(refused.value)
    cured = eval(expression, {"args": value, "dataclasses": dataclasses})
    ckptfmt.torch.save({"run": {"args": cured}}, tmp_path / "a.ckptfmt")
    assert same(ckptfmt.torch.load(tmp_path / "a.ckptfmt")["run"]["args"], cured)


@pytest.mark.parametrize(("state", "name"), [({"args": Config()}, "args"), ([Config()], "value"), (Config(), "value")])
def test_the_expression_has_the_name_of_the_object_if_it_has_one(tmp_path: Path, state: object, name: str) -> None:
    with pytest.raises(StateError, match=rf"asdict\({name}\)"):
        ckptfmt.torch.save(state, tmp_path / "a.ckptfmt")


def test_an_object_without_such_an_expression_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(StateError) as refused:
        ckptfmt.torch.save({"run": [Decimal(1)]}, tmp_path / "a.ckptfmt")
    assert refused.value.path == "run[0]"


@pytest.mark.parametrize("form", ["native", "zip"])
def test_files_are_read_from_their_position_and_left_at_their_end(tmp_path: Path, form: str) -> None:
    state = {"net": {"w": torch.arange(100.0)}, "epoch": 1}
    buffer = io.BytesIO(b"before")
    buffer.seek(6)
    if form == "native":
        report = ckptfmt.torch.save(state, buffer)
        assert report.file_bytes == buffer.tell() - 6
    else:
        other = io.BytesIO()
        torch.save(state, other)
        buffer.write(other.getvalue())
    buffer.seek(6)
    assert same(ckptfmt.torch.load(buffer), state)
    assert buffer.tell() == len(buffer.getvalue())
    assert buffer.getvalue()[:6] == b"before"
    buffer.write(b"more")  # nothing holds its memory


def test_a_file_that_is_written_is_what_a_path_gets(tmp_path: Path) -> None:
    state = {"net": {"w": torch.arange(1 << 20).float(), "b": torch.ones(3)}, "n": [1]}
    with (tmp_path / "a.ckptfmt").open("wb") as file:
        ckptfmt.torch.save(state, file, step=3)
    assert same(ckptfmt.torch.load(tmp_path / "a.ckptfmt"), state)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert checkpoint.metadata.step == 3
        assert checkpoint.verify() == ()


def test_a_pipe_can_be_written(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb") as target:
        ckptfmt.torch.save({"a": [1]}, target)
        target.close()
        found = ckptfmt.torch.load(io.BytesIO(source.read()))
    assert found == {"a": [1]}


class Full(io.RawIOBase):
    """A raw file that takes a few bytes at a time, and then none."""

    def __init__(self, limit: int) -> None:
        self.content = b""
        self._limit = limit

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if len(self.content) >= self._limit:
            raise OSError(28, "full")
        part = bytes(data[:1000])
        self.content += part
        return len(part)


def test_raw_files_may_take_less_than_they_are_given() -> None:
    raw: Any = Full(1 << 20)
    ckptfmt.torch.save({"w": torch.arange(1000)}, raw)
    assert same(ckptfmt.torch.load(io.BytesIO(raw.content)), {"w": torch.arange(1000)})


def test_a_full_disk_is_an_error_and_what_is_there_is_no_checkpoint() -> None:
    raw: Any = Full(5000)
    with pytest.raises(StorageError):
        ckptfmt.torch.save({"w": torch.arange(1000)}, raw)
    with pytest.raises(FormatError):
        ckptfmt.torch.load(io.BytesIO(raw.content))


def closed() -> BinaryIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize("make", [io.StringIO, closed], ids=["text", "closed"])
def test_files_that_cannot_be_used_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        ckptfmt.torch.load(make())
    with pytest.raises(UsageError):
        ckptfmt.torch.save({}, make())


def test_files_open_the_wrong_way_are_refused(tmp_path: Path) -> None:
    ckptfmt.torch.save({}, tmp_path / "a.ckptfmt")
    with (tmp_path / "a.ckptfmt").open("rb") as file, pytest.raises(UsageError):
        ckptfmt.torch.save({}, file)
    with (tmp_path / "b.ckptfmt").open("wb") as file, pytest.raises(UsageError):
        ckptfmt.torch.load(file)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb"), pytest.raises(UsageError):
        ckptfmt.torch.load(source)


def test_a_buffer_that_was_just_written_has_to_be_rewound() -> None:
    buffer = io.BytesIO()
    ckptfmt.torch.save({}, buffer)
    with pytest.raises(UsageError):
        ckptfmt.torch.load(buffer)


def test_an_open_file_cannot_be_mapped() -> None:
    with pytest.raises(UsageError):
        ckptfmt.torch.load(io.BytesIO(b"x"), mmap=True)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_is_mapped_lies_in_the_file_and_is_nobody_elses(tmp_path: Path) -> None:
    weight = torch.arange(1 << 20).float()
    torch.save({"w": weight, "tail": weight[5:]}, tmp_path / "a.pth")
    save_file({"w": weight}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        before = (tmp_path / name).read_bytes()
        read = ckptfmt.torch.load(tmp_path / name)
        assert str(tmp_path / name) not in Path("/proc/self/maps").read_text()
        mapped = ckptfmt.torch.load(tmp_path / name, mmap=True)
        assert str(tmp_path / name) in Path("/proc/self/maps").read_text()
        assert same(mapped, read)
        mapped["w"].zero_()
        assert (tmp_path / name).read_bytes() == before
        del mapped


def test_damage_is_found_before_a_tensor_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(1 << 20).float()}, path)
    data = bytearray(path.read_bytes())
    data[1 << 21] ^= 1
    path.write_bytes(data)
    for mmap in (False, True):
        with pytest.raises(ForeignFileError):
            ckptfmt.torch.load(path, mmap=mmap)


def test_map_location_moves_what_is_read_from_other_formats(tmp_path: Path) -> None:
    torch.save({"net": {"w": torch.ones(2)}}, tmp_path / "a.pth")
    found = ckptfmt.torch.load(tmp_path / "a.pth", map_location=torch.device("meta"))
    assert found["net"]["w"].device.type == "meta"


def test_safetensors_and_npz(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", w=np.ones(2, np.float32))
    for name in ("a.safetensors", "a.npz"):
        assert same(ckptfmt.torch.load(tmp_path / name), {"w": torch.ones(2)})
        assert same(ckptfmt.torch.load(io.BytesIO((tmp_path / name).read_bytes())), {"w": torch.ones(2)})


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def sharded(path: Path, net: nn.Module) -> Path:
    """Write the weights of a model as two shards, as Hugging Face does."""
    path.mkdir()
    state = net.state_dict()
    place = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(state)}
    for shard in set(place.values()):
        save_file({name: tensor for name, tensor in state.items() if place[name] == shard}, path / shard)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    (path / "config.json").write_text(json.dumps({"layers": 3}))
    return path


def trainer(path: Path, net: nn.Module, ranks: int) -> Path:
    """Write a checkpoint directory of the Trainer."""
    path.mkdir()
    save_file(net.state_dict(), path / "model.safetensors")
    torch.save(torch.optim.SGD(net.parameters(), lr=0.1).state_dict(), path / "optimizer.pt")
    for rank in range(ranks):
        state = {"cpu": torch.full((3,), rank), "python": (3, (1, 2), None)}
        torch.save(state, path / ("rng_state.pth" if ranks == 1 else f"rng_state_{rank}.pth"))
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 7, "epoch": 1.5}))
    return path


def test_a_sharded_directory_is_its_components(tmp_path: Path) -> None:
    net = model()
    found = ckptfmt.torch.load(sharded(tmp_path / "hf", net))
    assert same(found["net"], net.state_dict())
    assert found["config"] == {"layers": 3}


def test_a_directory_may_be_named_by_its_url(tmp_path: Path) -> None:
    path = sharded(tmp_path / "hf", model(0))
    assert same(ckptfmt.torch.load(path.as_uri()), ckptfmt.torch.load(path))
    other = model(1)
    ckptfmt.torch.warm_start(path.as_uri(), other, quiet=True)
    assert same(dict(other.state_dict()), dict(model(0).state_dict()))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_trainer_directory(tmp_path: Path, ranks: int) -> None:
    path = trainer(tmp_path / "checkpoint-7", model(), ranks)
    found = ckptfmt.torch.load(path)
    assert found["trainer_state"] == {"global_step": 7, "epoch": 1.5}
    assert found["optimizer"]["param_groups"][0]["lr"] == 0.1
    assert isinstance(found["rng"], PerRank) == (ranks == 2)
    for rank in range(ranks):
        assert ckptfmt.torch.load(path, rank=rank)["rng"]["torch"].eq(rank).all()
    if ranks == 2:
        with pytest.raises(MismatchError):
            ckptfmt.torch.load(path, rank=2)


@pytest.mark.parametrize("form", ["sharded", "trainer", "whole module", "scripted"])
def test_a_warm_start_from_whatever_holds_a_model(tmp_path: Path, form: str) -> None:
    net, other = model(0), model(1)
    match form:
        case "sharded":
            path = sharded(tmp_path / "a", net)
        case "trainer":
            path = trainer(tmp_path / "a", net, 1)
        case "whole module":
            path = tmp_path / "a.pth"
            torch.save(net, path)
        case _:
            path = tmp_path / "a.pt"
            torch.jit.save(torch.jit.trace(net.eval(), torch.ones(2, 3)), str(path))  # type: ignore[no-untyped-call]
    report = ckptfmt.torch.warm_start(path, other, quiet=True)
    assert same(dict(other.state_dict()), dict(net.state_dict()))
    assert set(report.loaded) == set(net.state_dict())
    assert report.lineage[0].name == path.name


def test_the_lineage_of_a_directory_depends_on_all_of_its_files(tmp_path: Path) -> None:
    path = sharded(tmp_path / "hf", model())
    first = ckptfmt.torch.warm_start(path, model(1), quiet=True).lineage[0].identity
    assert ckptfmt.torch.warm_start(path, model(1), quiet=True).lineage[0].identity == first
    (path / "config.json").write_text(json.dumps({"layers": 4}))
    assert ckptfmt.torch.warm_start(path, model(1), quiet=True).lineage[0].identity != first


def test_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    path = sharded(tmp_path / "hf", model())
    (path / "model-00001-of-00002.safetensors").unlink()
    for call in (ckptfmt.torch.load, lambda where: ckptfmt.torch.warm_start(where, model(1), quiet=True)):
        with pytest.raises(CkptfmtError):
            call(path)


def test_a_directory_of_checkpoints_is_none(tmp_path: Path) -> None:
    ckptfmt.torch.save({}, tmp_path / "a.ckptfmt")
    with pytest.raises(StorageError):
        ckptfmt.torch.load(tmp_path)
