"""Tensors and values of PyTorch in checkpoints: what comes back, and what is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptfmt.torch
from ckptfmt import FormatError, StateError, Typed, UnsupportedVersionError
from ckptfmt._core.container.adapters import TensorLeaf
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.torch.save_load import plan_state
from ckptfmt._core.torch.saving.staging import DeviceStaging
from ckptfmt._core.torch.tensors.adapter import TorchAdapter
from ckptfmt._core.torch.tensors.dtypes import DTYPES, PACKED
from tests.torch.same import same, same_tensor

# tmp_path is shared by the examples of one test; each example overwrites the file of the one before.
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
# PyTorch says so of every complex32 tensor; ours are no worse.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

STORED = [*DTYPES.values(), torch.complex128, torch.complex32]


def round_trip(path: Path, state: Any, **arguments: Any) -> Any:
    ckptfmt.torch.save(state, path, **arguments)
    return ckptfmt.torch.load(path)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits of any dtype, in any of the ways to lie in memory."""
    dtype = draw(st.sampled_from(STORED))
    shape = draw(st.lists(st.integers(0, 4), min_size=int(dtype in PACKED), max_size=4))
    nbytes = math.prod(shape) * dtype.itemsize
    data = bytearray(draw(st.binary(min_size=nbytes, max_size=nbytes)))
    if dtype is torch.bool:
        data = bytearray(byte & 1 for byte in data)
    tensor = torch.frombuffer(data, dtype=dtype).reshape(shape) if nbytes else torch.empty(shape, dtype=dtype)
    match draw(st.sampled_from(["as it is", "transposed", "strided", "expanded", "channels last", "conjugate"])):
        case "transposed" if tensor.ndim >= 2:
            return tensor.transpose(0, -1)
        case "strided" if tensor.ndim and tensor.shape[0]:
            return torch.cat([tensor, tensor])[::2]
        case "expanded" if tensor.ndim and tensor.shape[0]:
            return tensor[:1].expand(3, *tensor.shape[1:])
        case "channels last" if tensor.ndim == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        case "conjugate" if tensor.is_complex():
            return tensor.conj()
    return tensor


@many
@given(tensor=tensors(), codec=st.sampled_from(["none", "zstd"]))
def test_any_tensor_comes_back_bit_for_bit(tmp_path: Path, tensor: torch.Tensor, codec: str) -> None:
    state = {"flat": {"x": tensor}, "tree": {"list": [tensor, 1]}}
    back = round_trip(tmp_path / "a.ckptfmt", state, codec=codec)
    assert same_tensor(back["flat"]["x"], tensor)
    assert same_tensor(back["tree"]["list"][0], tensor)
    assert back["flat"]["x"].is_contiguous()


def all_dtypes() -> list[torch.dtype]:
    return sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("dtype", all_dtypes(), ids=str)
def test_every_dtype_is_kept_or_refused_with_the_path(tmp_path: Path, dtype: torch.dtype) -> None:
    try:
        tensor = torch.empty(3, dtype=dtype)
    except (RuntimeError, NotImplementedError, TypeError):
        pytest.skip("PyTorch makes no tensor of this dtype")
    if dtype in STORED:
        if dtype is torch.bool:
            tensor = torch.tensor([True, False, True])
        assert same_tensor(round_trip(tmp_path / "a.ckptfmt", {"net": {"w": tensor}})["net"]["w"], tensor)
    else:
        with pytest.raises(StateError, match=r"^net\.w: "):
            ckptfmt.torch.save({"net": {"w": tensor}, "n": 1}, tmp_path / "a.ckptfmt")
        assert not list(tmp_path.iterdir())


def test_conjugate_and_negative_views_are_stored_as_their_values(tmp_path: Path) -> None:
    base = torch.tensor([1 + 2j, 3 - 4j])
    state = {"x": {"base": base, "conj": base.conj(), "neg": base.conj().imag, "real": base.real}}
    back = round_trip(tmp_path / "a.ckptfmt", state)["x"]
    assert back["base"].tolist() == [1 + 2j, 3 - 4j]
    assert back["conj"].tolist() == [1 - 2j, 3 + 4j]
    assert back["neg"].tolist() == [-2, 4]
    assert back["real"].tolist() == [1, 3]


def test_parameters_buffers_and_inference_tensors_come_back_as_plain_tensors(tmp_path: Path) -> None:
    with torch.inference_mode():
        inferred = torch.ones(2)
    grown = torch.ones(2, requires_grad=True) * 2
    values = [torch.nn.Parameter(torch.ones(2)), torch.nn.Buffer(torch.ones(2)), inferred, grown]
    back = round_trip(tmp_path / "a.ckptfmt", {"values": values, "n": 1})["values"]
    assert [type(value) for value in back] == [torch.Tensor] * 4
    assert [value.requires_grad for value in back] == [False] * 4
    assert back[3].tolist() == [2, 2]


def test_tied_weights_are_stored_once_and_come_back_as_one_tensor(tmp_path: Path) -> None:
    net = torch.nn.ModuleDict({"embed": torch.nn.Embedding(500, 40), "head": torch.nn.Linear(40, 500, bias=False)})
    net["head"].weight = net["embed"].weight
    report = ckptfmt.torch.save({"net": net.state_dict()}, tmp_path / "a.ckptfmt")
    back = ckptfmt.torch.load(report.path)["net"]
    assert back["embed.weight"] is back["head.weight"]
    assert same(back, net.state_dict())
    assert report.file_bytes < 2 * 500 * 40 * 4


def test_complex128_ties_share_their_memory_again(tmp_path: Path) -> None:
    weight = torch.ones(2, 2, dtype=torch.complex128)
    back = round_trip(tmp_path / "a.ckptfmt", {"x": [weight, weight]})["x"]
    assert back[0].data_ptr() == back[1].data_ptr()


def test_only_equal_views_of_the_same_memory_are_tied(tmp_path: Path) -> None:
    base = torch.arange(4.0)
    apart = {
        "base": base,
        "part": base[:2],
        "row": base.view(1, 4),
        "bits": base.view(torch.int32),
        "copy": base.clone(),
    }
    empty = {"one": torch.empty(0), "two": torch.empty(0)}
    back = round_trip(tmp_path / "a.ckptfmt", {"apart": apart, "empty": empty})
    assert same(back, {"apart": apart, "empty": empty})
    values = [*back["apart"].values(), *back["empty"].values()]
    assert len({id(value) for value in values}) == len(values)
    with ckptfmt.torch.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert checkpoint["apart"].flat
        assert checkpoint["empty"].flat


def test_transposed_square_is_not_taken_for_the_original(tmp_path: Path) -> None:
    square = torch.arange(4.0).view(2, 2)
    back = round_trip(tmp_path / "a.ckptfmt", {"x": {"a": square, "b": square.t()}})["x"]
    assert back["a"].tolist() == [[0, 1], [2, 3]]
    assert back["b"].tolist() == [[0, 2], [1, 3]]


def test_contiguous_cpu_tensors_are_written_from_their_own_memory() -> None:
    tensor = torch.zeros(8)
    leaf = TorchAdapter().encode(tensor, "x")
    assert isinstance(leaf, TensorLeaf)
    data = leaf.read()
    tensor.fill_(1)
    assert bytes(data) == torch.ones(8).numpy().tobytes()


def sparse_tensors() -> dict[str, torch.Tensor]:
    dense = torch.tensor([[0.0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0], [0, 0, 4, 5]])
    hybrid = torch.stack([dense, dense], dim=-1)
    indices = torch.tensor([[0, 1, 1], [2, 0, 0]])
    coo = dense.to_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls its compressed layouts beta, and its checks a cost
        return {
            "coo": coo,
            "coo, not coalesced": torch.sparse_coo_tensor(indices, torch.ones(3), (2, 3)),
            "coo, hybrid": hybrid.to_sparse(2),
            "coo, empty": torch.zeros(5, 0, 3).to_sparse(),
            "coo, complex128": coo.to(torch.complex128),
            "coo, bfloat16, with gradient": coo.to(torch.bfloat16).requires_grad_(),
            "csr": dense.to_sparse_csr(),
            "csr, int32 indices": torch.sparse_csr_tensor(
                torch.tensor([0, 1, 2], dtype=torch.int32),
                torch.tensor([1, 0], dtype=torch.int32),
                torch.ones(2),
                (2, 2),
            ),
            "csr, batched": torch.stack([dense, dense]).to_sparse_csr(),
            "csr, hybrid": hybrid.to_sparse_csr(dense_dim=1),
            "csc": dense.to_sparse_csc(),
            "bsr": dense.to_sparse_bsr((2, 2)),
            "bsc": dense.to_sparse_bsc((2, 2)),
        }


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", sparse_tensors())
def test_sparse_tensors_come_back_in_their_layout(tmp_path: Path, name: str) -> None:
    tensor = sparse_tensors()[name]
    back = round_trip(tmp_path / "a.ckptfmt", {"state": {"grad": tensor, "n": 1}})["state"]["grad"]
    assert same_tensor(back, tensor)
    assert back.requires_grad is False


@pytest.mark.parametrize(
    "value",
    [
        torch.Size([]),
        torch.Size([2, 0, 3]),
        torch.bfloat16,
        torch.quint8,
        torch.device("cpu"),
        torch.device("cuda:3"),
        torch.device("meta"),
    ],
    ids=str,
)
def test_values_of_pytorch_keep_their_type(tmp_path: Path, value: object) -> None:
    back = round_trip(tmp_path / "a.ckptfmt", {"value": value, "in a list": [value]})
    assert back == {"value": value, "in a list": [value]}
    assert type(back["value"]) is type(value)


def test_the_version_of_pytorch_is_a_str(tmp_path: Path) -> None:
    back = round_trip(tmp_path / "a.ckptfmt", {"torch": torch.__version__})
    assert type(back["torch"]) is str
    assert back["torch"] == str(torch.__version__)


def test_numpy_values_beside_tensors_stay_numpy(tmp_path: Path) -> None:
    state = {
        "mixed": {"tensor": torch.ones(2), "array": np.arange(3), "scalar": np.float32(0.1), "c": np.ones(1, "c16")},
        "arrays": {"array": np.arange(3)},
    }
    back = round_trip(tmp_path / "a.ckptfmt", state)
    assert same(back, state)
    assert type(back["arrays"]["array"]) is np.ndarray


class Subclass(torch.Tensor):
    pass


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "meta": (lambda: torch.ones(2, device="meta"), "meta"),
    "quantized": (quantized, "int_repr"),
    "nested": (nested, "unbind"),
    "mkldnn": (lambda: torch.ones(2).to_mkldnn(), "to_dense"),
    "subclass": (lambda: torch.ones(2).as_subclass(Subclass), "Subclass"),
    "lazy": (lambda: torch.nn.LazyLinear(2).state_dict()["weight"], "Lazy|lazy|Uninitialized"),
    "module": (lambda: torch.nn.Linear(1, 1), r"state_dict\(\)"),
    "optimizer": (lambda: torch.optim.SGD([torch.ones(1)]), r"state_dict\(\)"),
    "generator": (torch.Generator, r"get_state\(\)"),
    "function": (lambda: torch.nn.functional.relu, "function"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_refused_with_path_and_advice(tmp_path: Path, name: str) -> None:
    make, advice = REFUSED[name]
    state = {"net": {"w": torch.ones(1)}, "optimizer": {"groups": [{"x": (0, make())}]}}
    with pytest.raises(StateError, match=rf"^optimizer\.groups\[0\]\.x\[1\]: .*{advice}"):
        ckptfmt.torch.save(state, tmp_path / "a.ckptfmt")
    assert not list(tmp_path.iterdir())


def coo(**changes: object) -> Typed:
    parts = {"indices": torch.tensor([[0, 1], [1, 0]]), "values": torch.ones(2), "size": [2, 2], "is_coalesced": True}
    return Typed("torch.sparse_coo", parts | changes)


def csr(**changes: object) -> Typed:
    parts = {
        "compressed_indices": torch.tensor([0, 1, 2]),
        "plain_indices": torch.tensor([0, 1]),
        "values": torch.ones(2),
        "size": [2, 2],
    }
    return Typed("torch.sparse_csr", parts | changes)


def bsr(name: str = "torch.sparse_bsr", **changes: object) -> Typed:
    return Typed(name, csr(values=torch.ones(2, 1, 1)).value | changes)


@pytest.mark.parametrize(
    "typed",
    [
        Typed("torch.device", "cuda:-1"),
        Typed("torch.device", "no device!"),
        Typed("torch.device", 3),
        Typed("torch.dtype", "../x"),
        Typed("torch.dtype", ["float32"]),
        Typed("torch.Size", [1, -1]),
        Typed("torch.Size", [2**64]),
        Typed("torch.Size", (1, 2)),
        Typed("C128", torch.ones(3, 2)),
        Typed("C128", torch.ones(3, dtype=torch.float64)),
        Typed("C32", 1.0),
        coo(indices=torch.tensor([[0, 5], [1, 0]])),
        coo(indices=torch.tensor([[0, -1], [1, 0]])),
        coo(indices=torch.tensor([[0, 0], [1, 1]])),
        csr(compressed_indices=torch.tensor([0, 1, 5])),
        csr(plain_indices=torch.tensor([0, 9])),
    ],
    ids=repr,
)
def test_nonsense_in_a_file_is_a_format_error(tmp_path: Path, typed: Typed) -> None:
    ckptfmt.torch.save({"x": typed}, tmp_path / "a.ckptfmt")
    with pytest.raises(FormatError) as caught:
        ckptfmt.torch.load(tmp_path / "a.ckptfmt")
    assert caught.value.code == "typed-value"
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "typed",
    [
        coo(indices=torch.tensor([[0.0, 1], [1, 0]])),
        coo(values=torch.ones(3)),
        coo(size=[2]),
        coo(size=[2**70, 2]),
        coo(is_coalesced=1),
        coo(values=[1.0, 1.0]),
        csr(plain_indices=torch.tensor([0.0, 1.0])),
        csr(size=[2, -2]),
        csr(size=[2**63 - 1, 2**63 - 1]),
        bsr(values=torch.ones(2, 0, 0)),
        bsr(values=torch.ones(2, 1, 0)),
        bsr(values=torch.ones(2, 0, 1)),
        bsr(values=torch.ones(2)),
        bsr(
            compressed_indices=torch.tensor([[0, 1, 2]] * 3),
            plain_indices=torch.tensor([[0, 1]] * 3),
            values=torch.ones(3, 2, 1, 0),
            size=[3, 2, 2],
        ),
        bsr(compressed_indices=torch.tensor(0)),
        bsr("torch.sparse_bsc", values=torch.ones(2, 0, 0)),
    ],
    ids=repr,
)
def test_parts_that_do_not_make_a_sparse_tensor_are_not_written(tmp_path: Path, typed: Typed) -> None:
    with pytest.raises(StateError):
        ckptfmt.torch.save({"x": typed}, tmp_path / "a.ckptfmt")


@pytest.mark.parametrize(
    "typed",
    [
        Typed("torch.device", "npu:0"),
        Typed("torch.device", "cpu:999999"),
        Typed("torch.dtype", "float3"),
        Typed("new", [1]),
    ],
    ids=repr,
)
def test_what_only_a_newer_pytorch_knows_stays_as_it_is(tmp_path: Path, typed: Typed) -> None:
    assert round_trip(tmp_path / "a.ckptfmt", {"x": typed})["x"] == typed


@dataclass(slots=True, eq=False)
class BytesLeaf(TensorLeaf):
    """A tensor that no framework made."""

    data: bytes

    def read(self) -> memoryview:
        return memoryview(self.data)


def test_a_tensor_of_another_length_than_its_shape_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"123", b"12345"):
        with pytest.raises(StateError, match=rf"^optimizer\.0: .*\b{len(data)} bytes.* 4"):
            ckptfmt.torch.save({"optimizer": [BytesLeaf("F32", (), data)]}, tmp_path / "a.ckptfmt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("nbytes", [4, 1 << 20])
def test_a_tensor_of_another_length_is_refused_when_it_is_copied(nbytes: int) -> None:
    leaf = BytesLeaf("F32", (nbytes // 4,), bytes(nbytes + 1))
    plan = plan_state({"optimizer": [leaf]}, metadata=Metadata(), codec="none")
    with pytest.raises(StateError, match=rf"\b{nbytes + 1} bytes.* {nbytes}"):
        DeviceStaging().copy(plan)


def test_a_dtype_that_pytorch_lacks_is_an_unsupported_version(tmp_path: Path) -> None:
    leaf = BytesLeaf("F6_E2M3", (4,), b"\x12\x34\x56")
    ckptfmt.torch.save({"x": leaf}, tmp_path / "a.ckptfmt")
    with pytest.raises(UnsupportedVersionError, match="F6_E2M3"):
        ckptfmt.torch.load(tmp_path / "a.ckptfmt")


def test_other_bytes_for_true_are_true_for_pytorch(tmp_path: Path) -> None:
    leaf = BytesLeaf("BOOL", (4,), b"\x00\x01\x02\xff")
    ckptfmt.torch.save({"net": {"x": leaf}, "step": 1}, tmp_path / "a.ckptfmt")
    (back,) = ckptfmt.torch.load(tmp_path / "a.ckptfmt")["net"].values()
    assert back.view(torch.uint8).tolist() == [0, 1, 1, 1]
