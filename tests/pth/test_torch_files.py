"""Files of PyTorch, converted: value for value what PyTorch itself loads from them."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import pathlib
import uuid
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt import Typed
from ckptfmt._core.pth.forms import zip_form as zipped
from ckptfmt.errors import UnsupportedFileError
from tests.pth import legacy_files
from tests.pth.legacy_files import save
from tests.torch.same import same

FORMS = [(stream, protocol) for stream in (False, True) for protocol in (2, 3, 4, 5)]


def converted(path: Path, **options: Any) -> Any:
    target = path.with_suffix(".ckptfmt")
    ckptfmt.convert(path, target, check=True, **options)
    return ckptfmt.torch.load(target)


def loaded(path: Path) -> Any:
    with warnings.catch_warnings(action="ignore"):  # of old forms
        return torch.load(path, weights_only=False)


@pytest.mark.parametrize(("stream", "protocol"), FORMS)
def test_the_documented_loop(tmp_path: Path, stream: bool, protocol: int) -> None:
    path = save(legacy_files.documented(), tmp_path / "a.pth", stream=stream, protocol=protocol)
    found = converted(path)
    assert same(found, loaded(path))
    assert list(found) == ["net", "optimizer", "epoch"]
    assert isinstance(found["net"], collections.OrderedDict)
    versions = loaded(path)["net"]._metadata
    assert vars(found["net"])["_metadata"] == {
        name: facts for name, facts in versions.items() if name != "2"
    }  # without tensors


def test_every_dtype(tmp_path: Path) -> None:
    path = save(legacy_files.of_every_dtype(), tmp_path / "a.pth")
    assert same(converted(path), loaded(path))


def test_every_dtype_of_the_older_form(tmp_path: Path) -> None:
    """PyTorch itself does not read back what it writes of the others: their storages have no type there."""
    untyped = ("uint16", "uint32", "uint64", "complex32", "float8")
    every = legacy_files.of_every_dtype()
    typed = {name: tensor for name, tensor in every.items() if not any(word in name for word in untyped)}
    path = save(typed, tmp_path / "a.pth", stream=True)
    assert same(converted(path), loaded(path))
    assert same(converted(save(every, tmp_path / "b.pth", stream=True)), every)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", [2, 5])
def test_every_way_to_lie_in_a_storage(tmp_path: Path, stream: bool, protocol: int) -> None:
    path = save(legacy_files.views(), tmp_path / "a.pth", stream=stream, protocol=protocol)
    assert same(converted(path), loaded(path))


def test_a_file_of_before_0_1_10(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32)
    state = {"a": base.reshape(4, 6), "b": base.reshape(4, 6).t(), "c": torch.arange(5), "n": [1, "x", base[3:5]]}
    path = legacy_files.save_tar(state, tmp_path / "a.pth")
    assert same(loaded(path), state), "or PyTorch would not read what the test made"
    assert same(converted(path), state)


def test_a_file_of_a_big_endian_machine(tmp_path: Path) -> None:
    typed = {
        name: tensor
        for name, tensor in legacy_files.of_every_dtype().items()
        if "uint16" not in name and "uint32" not in name and "uint64" not in name and "complex32" not in name
    }
    path = legacy_files.save_big_endian(typed, tmp_path / "a.pth")
    assert same(loaded(path), typed), "or PyTorch would not read what the test made"
    assert same(converted(path), typed)


def test_a_compressed_archive(tmp_path: Path) -> None:
    path = save(legacy_files.views() | legacy_files.documented(), tmp_path / "a.pth")
    legacy_files.repack(path, method=zipfile.ZIP_DEFLATED)
    assert same(converted(path), loaded(path))


def test_tied_weights_are_tied_again(tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    state = {"net": {"wte": weight, "head": weight, "other": weight.t(), "same values": weight.clone()}}
    path = save(state, tmp_path / "a.pth")
    report = ckptfmt.convert(path, tmp_path / "a.ckptfmt")
    found = ckptfmt.torch.load(tmp_path / "a.ckptfmt")["net"]
    assert same(found, state["net"])
    assert found["wte"] is found["head"]
    assert found["same values"] is not found["wte"]
    assert [(alias.component, alias.tensor, alias.places) for alias in report.aliases] == [("net", "wte", 2)]


def test_sparse_tensors(tmp_path: Path) -> None:
    dense = torch.eye(4) * 3
    with warnings.catch_warnings(action="ignore"):  # PyTorch calls some of the layouts new
        state = {
            "x": {
                "coo": dense.to_sparse(),
                "coalesced": torch.sparse_coo_tensor(
                    torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, 2.0]), (2, 2)
                ).coalesce(),
                "csr": dense.to_sparse_csr(),
                "csc": dense.to_sparse_csc(),
                "bsr": dense.to_sparse_bsr((2, 2)),
                "bsc": dense.to_sparse_bsc((2, 2)),
            }
        }
        path = save(state, tmp_path / "a.pth")
        assert same(converted(path), state)


def test_quantized_tensors_become_their_integers_and_scales(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # PyTorch gives them up
        by_tensor = torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 3, torch.qint8)
        path = save({"w": by_tensor, "epoch": 1}, tmp_path / "a.pth")
    found = converted(path)["w"]
    assert isinstance(found, Typed)
    assert found.name == "torch.quantized"
    assert same(found.value["int_repr"], by_tensor.int_repr())
    assert (found.value["scale"], found.value["zero_point"]) == (0.1, 3)


PLAIN: dict[str, Any] = {
    "none": None,
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**40, 2**70, -(2**70), 1.5, float("inf"), True, False, 2 + 3j],
    "text": ["", "x", "Grüße", "\x00", "line\nend"],
    "bytes": [b"", b"\x00\xff", b"long" * 100],
    "tuple": (1, (2, ()), []),
    "set": {1, 2, 3},
    "frozen": frozenset({"a", "b"}),
    "keys": {1: "a", None: "b", 2.5: "c", b"d": "d", "e": "e"},
    "ordered": collections.OrderedDict(b=1, a=2),
    "default": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("aab"),
    "size": torch.Size([2, 3]),
    "dtype": [torch.float16, torch.bfloat16, torch.int64, torch.bool],
    "device": [torch.device("cpu"), torch.device("cuda", 3)],
    "array": np.arange(12.0).reshape(3, 4),
    "arrays": [
        np.arange(6).astype(dtype).reshape(2, 3) for dtype in ("i1", "u2", "f2", "f4", ">f8", ">i4", "c8", "c16", "?")
    ],
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "strided": np.arange(12.0).reshape(3, 4)[:, 1:3],
    "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True), np.complex128(1 + 2j), np.float64("nan")],
    "times": [
        datetime.datetime(2026, 3, 1, 9, 30, 15, 123456),
        datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC),
        datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        datetime.date(2026, 3, 1),
        datetime.time(9, 30, 15, 1),
        datetime.timedelta(days=-1, seconds=5, microseconds=7),
    ],
}


@pytest.mark.parametrize(("stream", "protocol"), FORMS)
def test_plain_values(tmp_path: Path, stream: bool, protocol: int) -> None:
    path = save(PLAIN, tmp_path / "a.pth", stream=stream, protocol=protocol)
    found = converted(path)
    for name, value in PLAIN.items():
        if name in ("counter", "default"):
            value = dict(value)
        if name == "arrays":
            value = [array.astype(array.dtype.newbyteorder("<")) for array in value]
        assert same(found[name], value), name


def test_records_become_inert_data_and_are_listed(tmp_path: Path) -> None:
    state = {
        "args": argparse.Namespace(lr=0.1, layers=[1, 2], net=torch.ones(2)),
        "path": pathlib.PurePosixPath("/data/train"),
        "id": uuid.UUID(int=5),
        "number": decimal.Decimal("1.50"),
        "queue": collections.deque([1, 2], maxlen=4),
    }
    path = save(state, tmp_path / "a.pth")
    report = ckptfmt.convert(path, tmp_path / "a.ckptfmt", strict=True)
    found = ckptfmt.torch.load(tmp_path / "a.ckptfmt")
    assert found["args"].name == "argparse.Namespace"
    assert same(found["args"].value, vars(state["args"]))
    assert found["path"] == Typed("pathlib.PurePosixPath", "/data/train")
    assert found["number"] == Typed("decimal.Decimal", "1.50")
    assert found["queue"] == Typed("collections.deque", [1, 2])
    assert set(report.findings.inert) == {
        *("argparse.Namespace", "pathlib.PurePosixPath", "uuid.UUID", "decimal.Decimal", "collections.deque")
    }
    assert report.findings.unknown == ()


def test_a_dict_with_keys_that_ours_cannot_have_is_kept_as_pairs(tmp_path: Path) -> None:
    path = save({"table": {(1, 2): "a", "b": 3}, "epoch": 1}, tmp_path / "a.pth")
    assert converted(path)["table"] == Typed("python.dict", [[(1, 2), "a"], ["b", 3]])


def test_what_cannot_be_expressed_is_refused_with_its_place(tmp_path: Path) -> None:
    path = save({"net": {"a": "\ud800"}}, tmp_path / "a.pth")
    with pytest.raises(ckptfmt.StateError) as caught:
        ckptfmt.convert(path, tmp_path / "a.ckptfmt")
    assert "net.a" in caught.value.path
    assert str(path) in str(caught.value)
    assert not (tmp_path / "a.ckptfmt").exists()


def test_a_damaged_storage_is_found_and_nothing_is_written(tmp_path: Path) -> None:
    path = save({"net": {"a": torch.arange(100.0)}, "epoch": 1}, tmp_path / "a.pth")
    data = bytearray(path.read_bytes())
    at = data.index(torch.arange(100.0).numpy().tobytes())
    data[at + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(ckptfmt.ForeignFileError) as caught:
        ckptfmt.convert(path, tmp_path / "a.ckptfmt")
    assert caught.value.path == str(path)
    assert "data/0" in caught.value.detail
    assert [child.name for child in tmp_path.iterdir()] == ["a.pth"]


def test_views_of_a_compressed_storage_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(64_000.0)
    state = {f"v{number}": values[number * 1000 : number * 1000 + 1000] for number in reversed(range(64))}
    state["transposed"] = values.view(250, 256).t()
    path = legacy_files.repack(save({"net": state}, tmp_path / "a.pth"), method=zipfile.ZIP_DEFLATED)
    ckptfmt.convert(path, tmp_path / "a.ckptfmt")
    assert same(ckptfmt.torch.load(tmp_path / "a.ckptfmt")["net"], state)

    for name in ("REWORK", "FREE_REWORK_BYTES"):
        monkeypatch.setattr(zipped, name, 0)
    with pytest.raises(UnsupportedFileError) as caught:
        ckptfmt.convert(path, tmp_path / "b.ckptfmt")
    assert caught.value.path == str(path)
    assert not (tmp_path / "b.ckptfmt").exists()


def test_damage_in_the_part_of_a_storage_that_no_tensor_uses_is_found_too(tmp_path: Path) -> None:
    path = save({"net": {"a": torch.arange(100.0)[:10]}, "epoch": 1}, tmp_path / "a.pth")
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(50, 100.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ckptfmt.ForeignFileError) as caught:
        ckptfmt.convert(path, tmp_path / "a.ckptfmt")
    assert caught.value.path == str(path)
    assert "data/0" in caught.value.detail
    assert [child.name for child in tmp_path.iterdir()] == ["a.pth"]


def test_one_state_in_two_forms_is_the_same_checkpoint(tmp_path: Path) -> None:
    """What is written is canonical: it depends on the state, and not on the form that it came in."""
    state = legacy_files.documented() | {"views": legacy_files.views()}
    identities = set()
    for stream, protocol in FORMS:
        path = save(state, tmp_path / "a.pth", stream=stream, protocol=protocol)
        ckptfmt.convert(path, tmp_path / "a.ckptfmt")
        with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
            identities.add(tuple(component.identity for component in checkpoint.values()))
    ckptfmt.torch.save(state, tmp_path / "b.ckptfmt")
    with ckptfmt.open(tmp_path / "b.ckptfmt") as checkpoint:
        identities.add(tuple(component.identity for component in checkpoint.values()))
    assert len(identities) == 1
