"""Files of PyTorch as states for live objects: the same tensors as PyTorch's own loader gives, and nothing inert."""

from __future__ import annotations

import argparse
import json
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.torch.restore.file_states import FileStates
from ckptfmt._core.torch.state.inert import inert_objects
from ckptfmt.errors import ForeignFileError, MismatchError, UnsupportedFileError
from ckptfmt.torch import Checkpointer, warm_start

BASE = torch.arange(60, dtype=torch.float32) / 7


def dtypes() -> dict[str, torch.Tensor]:
    numbers = torch.arange(-6, 6)
    wanted = (
        "uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 bfloat16 float32 float64 bool complex64 complex128"
    )
    wanted += " complex32 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
    found = {name: getattr(torch, name) for name in wanted.split() if hasattr(torch, name)}
    return {name: numbers.to(dtype).reshape(3, 4) for name, dtype in found.items()}


def layouts() -> dict[str, torch.Tensor]:
    matrix = BASE.reshape(6, 10)
    complex_ = torch.complex(BASE, -BASE).reshape(6, 10)
    return {
        "whole": BASE,
        "rows": matrix[2:4],
        "transposed": matrix.T,
        "steps": matrix[::2, 1::3],
        "again": matrix,
        "expanded": BASE[3].expand(4, 5),
        "scalar": BASE[7],
        "empty": BASE[:0].reshape(0, 3),
        "of integers": torch.arange(5)[1:],
        "conjugated": complex_.conj(),
        "imaginary": complex_.clone().conj().imag,
        "parameter": nn.Parameter(BASE.clone()),
    }


def large() -> dict[str, torch.Tensor]:
    """Return views of storages that are too large to lie where PyTorch puts small ones."""
    numbers = torch.arange(3 << 20, dtype=torch.float32)
    parts = torch.complex(numbers[: 1 << 20], -numbers[: 1 << 20])
    return {
        "whole": numbers,
        "part": numbers[12345:],
        "transposed": numbers[: 1 << 20].view(1 << 9, 1 << 11).t(),
        "every third": numbers[1::3],
        "complex": parts,
        "conjugate": parts.conj()[1:],
        "doubles": torch.arange(1 << 20, dtype=torch.float64).view(2, -1)[1],
        "bytes": torch.arange(5 << 20).to(torch.uint8)[3:],
    }


def others() -> dict[str, Any]:
    dense = torch.zeros(4, 6)
    dense[1, 2], dense[3, 0] = 1.5, -2
    numbers = torch.linspace(-1, 1, 12).reshape(3, 4)
    return {
        "coo": dense.to_sparse(),
        "coalesced": dense.to_sparse().coalesce(),
        "csr": dense.to_sparse_csr(),
        "csc": dense.to_sparse_csc(),
        "bsr": dense.to_sparse_bsr((2, 2)),
        "per tensor": torch.quantize_per_tensor(numbers, 0.1, 3, torch.quint8),
        "signed": torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint8),
        "wide": torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint32),
        "per channel": torch.quantize_per_channel(
            numbers, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2]), 0, torch.qint8
        ),
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
    }


def plain() -> dict[str, Any]:
    tensor = torch.ones(3)
    return {
        "list": [1, 2.5, None, True, "text", b"bytes", -(2**70), float("inf")],
        "tuple": (1, (2, [3])),
        "set": {1, 2},
        "ordered": OrderedDict(b=1, a=tensor),
        "numbers as keys": {0: {"step": tensor}, 1: {}},
        "the same": [tensor, tensor],
    }


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of complex halves, CSR and quantized tensors
        yield


def read(path: Path, *names: str) -> dict[str, Any]:
    with open_tensors(path) as file:
        states = FileStates(file)
        content = {name: states.component(name) for name in names or states.names}
        file.finish()
    return content


def bits(tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def alike(a: Any, b: Any) -> None:
    """Assert that two values are the same, tensors to the last bit and stride."""
    if not isinstance(a, torch.Tensor):
        if isinstance(a, dict):
            assert list(a) == list(b)
            for key in a:
                alike(a[key], b[key])
        elif isinstance(a, list | tuple) and not isinstance(a, torch.Size):
            assert type(a) is type(b)
            assert len(a) == len(b)
            for one, other in zip(a, b, strict=True):
                alike(one, other)
        else:
            assert (type(a), a) == (type(b), b)
        return
    assert isinstance(b, torch.Tensor)
    assert (a.dtype, a.shape, a.layout) == (b.dtype, b.shape, b.layout)
    if a.layout is torch.sparse_coo:
        assert a.is_coalesced() == b.is_coalesced()
        alike(a._indices(), b._indices())
        alike(a._values(), b._values())
    elif a.layout is not torch.strided:
        alike(a.to_dense(), b.to_dense())
        alike(a.values(), b.values())
    elif a.is_quantized:
        alike(a.int_repr(), b.int_repr())
        alike(a.dequantize(), b.dequantize())
        assert a.qscheme() == b.qscheme()
    else:
        assert a.stride() == b.stride() or not a.numel()
        assert (a.is_conj(), a.is_neg()) == (b.is_conj(), b.is_neg())
        assert bits(a) == bits(b)


def shared(state: dict[str, Any]) -> set[tuple[str, str]]:
    """Return which tensors of a flat state lie in one storage."""
    places = {
        name: value.untyped_storage().data_ptr()
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and value.layout is torch.strided and value.numel()
    }
    return {(a, b) for a in places for b in places if a < b and places[a] == places[b]}


@pytest.mark.parametrize("form", ["zip", "stream", "compressed"])
@pytest.mark.parametrize("make", [dtypes, layouts, large, others, plain])
def test_it_is_what_torch_load_gives(tmp_path: Path, make: Any, form: str) -> None:
    state = {"state": make(), "epoch": 3}
    path = tmp_path / "a.pth"
    torch.save(state, path)
    expected = torch.load(path, weights_only=True)
    if form == "stream":  # in which PyTorch cannot read all that it writes
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif form == "compressed":
        compress(path)
    found = read(path)
    alike(expected, found)
    assert shared(found["state"]) == shared(expected["state"])
    assert inert_objects("state", found["state"]) == ()


def compress(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_numbers_in_the_other_byte_order(tmp_path: Path) -> None:
    state = {"state": {name: tensor for name, tensor in dtypes().items() if tensor.element_size() > 1}}
    path = tmp_path / "a.pth"
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            part = name.partition("/")[2]
            if part.startswith("data/"):
                tensor = list(state["state"].values())[int(part.removeprefix("data/"))]
                word = tensor.element_size() // (2 if tensor.is_complex() else 1)
                content = np.frombuffer(content, np.uint8).reshape(-1, word)[:, ::-1].tobytes()
            archive.writestr(name, b"big" if part == "byteorder" else content)
    alike(state, read(path))


def test_what_is_shared_between_components_stays_shared(tmp_path: Path) -> None:
    net = nn.Linear(3, 3)
    torch.save({"net": net.state_dict(), "ema": {"w": net.weight.detach()[1:]}}, tmp_path / "a.pth")
    found = read(tmp_path / "a.pth")
    found["net"]["weight"].fill_(5)
    assert found["ema"]["w"].eq(5).all()


def test_a_state_dict_keeps_the_versions_of_its_modules(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    torch.save({"net": net.state_dict()}, tmp_path / "a.pth")
    found = read(tmp_path / "a.pth")["net"]
    assert found._metadata == net.state_dict()._metadata  # type: ignore[attr-defined]  # where PyTorch has it


def test_values_of_numpy_are_values_of_numpy(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "float": np.float64(0.1),
        "half": np.float16(0.5),
        "int": np.int32(-4),
        "bool": np.bool_(True),
        "complex": np.complex128(1 - 2j),
        "array": np.arange(6, dtype=">i4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "complexes": np.array([1j, 2]),
        "empty": np.zeros((0, 3), np.float32),
    }
    torch.save({"state": values}, tmp_path / "a.pth")
    found = read(tmp_path / "a.pth")["state"]
    for name, value in values.items():
        assert np.array_equal(found[name], value), name
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype.newbyteorder("="), name
        assert isinstance(found[name], np.ndarray) == isinstance(value, np.ndarray)


def test_keys_of_any_plain_kind(tmp_path: Path) -> None:
    state = {(1, "a"): 1, 2.5: 2, None: 3, b"x": 4, True: 5}
    torch.save({"state": state, "sets": [{(1, 2)}, frozenset({(3,)})]}, tmp_path / "a.pth")
    found = read(tmp_path / "a.pth")
    assert found == {"state": state, "sets": [{(1, 2)}, frozenset({(3,)})]}


@pytest.mark.parametrize("place", ["data", "pickle"])
def test_damage_is_found_wherever_it_is(tmp_path: Path, place: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"net": {"w": torch.full((1000,), 1.25)}, "optimizer": {"w": torch.full((1000,), 3.5)}}, path)
    data = bytearray(path.read_bytes())
    where = np.float32(3.5).tobytes() * 500 if place == "data" else b"optimizer"
    data[data.index(where) + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ForeignFileError, match=r"a\.pth"):
        read(path, "net")


class Config:
    """An object of a class of one's own."""

    def __init__(self) -> None:
        self.lr = 0.1


class Holder:
    """A component that keeps what it is given."""

    def __init__(self) -> None:
        self.given: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        self.given = state


@pytest.mark.parametrize(
    "value",
    [argparse.Namespace(lr=1), Config(), Path("a/b"), np.array(["a"])],
    ids=["Namespace", "Config", "Path", "text"],
)
def test_an_object_in_a_component_is_refused_with_the_path_to_it(tmp_path: Path, value: object) -> None:
    state = {"holder": {"list": [1, {"it": value}]}, "net": nn.Linear(1, 1).state_dict(), "epoch": 0}
    torch.save(state, tmp_path / "a.pth")
    net, holder = nn.Linear(1, 1), Holder()
    ckpt = Checkpointer(tmp_path, {"net": net, "holder": holder})
    with pytest.raises(MismatchError, match=r"holder\.list\[1\]\.it: "):
        ckpt.resume(quiet=True, allow_mismatch=["rng"])
    assert holder.given is None
    report = Checkpointer(tmp_path, {"net": net, "holder": holder}).resume(quiet=True, allow_mismatch=["rng", "holder"])
    assert holder.given is None
    assert "net" in report.restored
    assert report.epoch == 1
    torch.save({"weights": {**net.state_dict(), "it": value}}, tmp_path / "b.pth")
    with pytest.raises(MismatchError, match=r"weights\.it: "):
        warm_start(tmp_path / "b.pth", nn.Linear(1, 1), quiet=True)


def test_what_a_component_gets_is_plain(tmp_path: Path) -> None:
    state = {"moments": torch.ones(3), "betas": (0.9, 0.99), "names": ["a"], "best": np.float64(0.5)}
    torch.save({"holder": state, "args": argparse.Namespace(lr=1), "best": Config(), "epoch": 4}, tmp_path / "a.pth")
    holder = Holder()
    report = Checkpointer(tmp_path, {"holder": holder}).resume(quiet=True, allow_mismatch=["rng"])
    assert report.path == str(tmp_path / "a.pth")
    assert report.unexpected == ("args", "best")
    alike(holder.given, state)


def test_safetensors_are_what_their_own_library_gives(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    large = torch.arange(1 << 19, dtype=torch.int32)
    unknown = (torch.complex32, torch.complex128)
    state = {**dtypes(), "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3), "large": large}
    save_file({name: tensor.contiguous() for name, tensor in state.items() if tensor.dtype not in unknown}, path)
    before = path.read_bytes()
    with open_tensors(path) as file:
        found = FileStates(file).whole()
    alike(dict(sorted(load_file(path).items())), dict(sorted(found.items())))
    found["large"].zero_()  # it lies in a map of the file, which is nobody else's
    assert path.read_bytes() == before


def test_large_tensors_that_lie_at_odd_places(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    large = torch.arange(1 << 18, dtype=torch.float32)
    header = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    header["b"] = {"dtype": "F32", "shape": [1 << 18], "data_offsets": [1, 1 + (4 << 18)]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\x05" + bits(large))
    with open_tensors(path) as file:
        found = FileStates(file).whole()
    assert torch.equal(found["b"], large)
    assert found["a"].tolist() == [5]


def test_arrays_of_numpy_are_tensors(tmp_path: Path) -> None:
    arrays = {"f": np.arange(6.0).reshape(2, 3), "c": np.array([1j, 2]), "b": np.array([True, False])}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]  # of several kinds
    with open_tensors(tmp_path / "a.npz") as file:
        found = FileStates(file).whole()
    for name, array in arrays.items():
        assert torch.equal(found[name], torch.from_numpy(array)), name


def test_text_is_no_tensor(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", words=np.array(["a", "b"]))
    with open_tensors(tmp_path / "a.npz") as file, pytest.raises(UnsupportedFileError, match="words"):
        FileStates(file).whole()


@pytest.mark.parametrize("name", ["a.bin", "a.ckpt", "a"])
def test_content_decides_and_not_the_name(tmp_path: Path, name: str) -> None:
    net, other = nn.Linear(3, 3), nn.Linear(3, 3)
    save_file(dict(net.state_dict()), tmp_path / name)
    warm_start(tmp_path / name, other, quiet=True)
    assert torch.equal(other.weight, net.weight)
