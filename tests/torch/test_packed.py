"""Tensors of 4-bit floats: PyTorch has two in each of its elements, files have them one by one (spec 9)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

import ckptfmt
import ckptfmt.torch
from ckptfmt import StateError, UnsupportedVersionError
from ckptfmt._core.container.planning import MemberPlan, SavePlan, fixed_part
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.tensors import plan_header
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.conversion.export import export
from ckptfmt.errors import UnsupportedFileError
from tests.torch.same import same_tensor

if not hasattr(torch, "float4_e2m1fn_x2"):
    pytest.skip("this PyTorch has no 4-bit floats", allow_module_level=True)

F4 = torch.float4_e2m1fn_x2


def packed(*shape: int) -> torch.Tensor:
    """Return a tensor with this shape in PyTorch, of any bits."""
    count = torch.Size(shape).numel()
    return (torch.arange(count) * 37 % 256).to(torch.uint8).reshape(shape).view(F4)


class Net(torch.nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", torch.ones(3))


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize(
    "make",
    {
        "as it is": lambda: packed(3, 4),
        "one dimension": lambda: packed(5),
        "empty": lambda: packed(2, 0),
        "transposed": lambda: packed(3, 4).T,
        "every other": lambda: packed(6, 4)[::2],
        "large": lambda: packed(700, 1000),
    }.items(),
    ids=lambda item: item[0],
)
def test_they_come_back_bit_for_bit(make: tuple[str, Callable[[], torch.Tensor]], codec: str, tmp_path: Path) -> None:
    tensor = make[1]()
    path = tmp_path / "a.ckptfmt"
    ckptfmt.torch.save({"flat": {"x": tensor}, "tree": {"list": [tensor, 1]}}, path, codec=codec)
    back = ckptfmt.torch.load(path)
    assert same_tensor(back["flat"]["x"], tensor)
    assert same_tensor(back["tree"]["list"][0], tensor)
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint["flat"].tensors["x"].shape == (*tensor.shape[:-1], 2 * tensor.shape[-1])


def test_the_same_bytes_as_another_dtype_are_another_tensor(tmp_path: Path) -> None:
    tensor = packed(3, 4)
    state = {"a": tensor, "again": tensor, "bytes": tensor.view(torch.uint8)}
    ckptfmt.torch.save({"net": state}, tmp_path / "a.ckptfmt")
    back = ckptfmt.torch.load(tmp_path / "a.ckptfmt")["net"]
    assert back["a"] is back["again"]
    assert same_tensor(back["a"], tensor)
    assert same_tensor(back["bytes"], tensor.view(torch.uint8))


def test_they_are_restored_in_place(tmp_path: Path) -> None:
    saved, live = Net(packed(3, 4)), Net(torch.zeros(3, 4, dtype=torch.uint8).view(F4))
    ckptfmt.torch.save({"net": saved.state_dict()}, tmp_path / "a.ckptfmt")
    place = live.weight.data_ptr()
    ckptfmt.torch.restore(tmp_path / "a.ckptfmt", {"net": live})
    assert same_tensor(live.weight.detach(), saved.weight.detach())
    assert live.weight.data_ptr() == place


def test_a_tensor_without_dimensions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"^net\.w: "):
        ckptfmt.torch.save({"net": {"w": torch.empty((), dtype=F4)}}, tmp_path / "a.ckptfmt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(2, 3), (4, 1)])
def test_an_odd_last_dimension_is_readable_as_bytes_only(shape: tuple[int, ...], tmp_path: Path) -> None:
    header = plan_header([("w", "F4", shape)])
    parts = [fixed_part(header.block()), fixed_part(b"123"[: header.data_bytes])]
    plan = SavePlan(("net",), (MemberPlan("net.safetensors", "none", header, parts),), Metadata())
    write_plan(tmp_path / "a.ckptfmt", plan)
    with pytest.raises(UnsupportedVersionError) as caught:
        ckptfmt.torch.load(tmp_path / "a.ckptfmt")
    assert [problem.code for problem in caught.value.problems] == ["tensor-dtype"]
    with pytest.raises(UnsupportedVersionError):
        ckptfmt.torch.restore(tmp_path / "a.ckptfmt", {"net": Net(packed(2, 2))})
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert bytes(checkpoint["net"].read_bytes("w")) == b"123"[: header.data_bytes]
    export(tmp_path / "a.ckptfmt", tmp_path / "a.safetensors")
    with pytest.raises(UnsupportedFileError):
        ckptfmt.torch.warm_start(tmp_path / "a.safetensors", Net(packed(2, 2)))


def test_the_safetensors_package_reads_and_writes_the_same_tensors(tmp_path: Path) -> None:
    tensor = packed(3, 4)
    ckptfmt.torch.save({"net": {"w": tensor}}, tmp_path / "a.ckptfmt")
    export(tmp_path / "a.ckptfmt", tmp_path / "a.safetensors")
    assert same_tensor(safetensors.torch.load_file(tmp_path / "a.safetensors")["w"], tensor)
    safetensors.torch.save_file({"weight": tensor, "scale": torch.ones(3)}, tmp_path / "b.safetensors")
    convert(tmp_path / "b.safetensors", tmp_path / "b.ckptfmt")
    assert same_tensor(ckptfmt.torch.load(tmp_path / "b.ckptfmt")["weight"], tensor)
    net = Net(torch.zeros(3, 4, dtype=torch.uint8).view(F4))
    ckptfmt.torch.warm_start(tmp_path / "b.safetensors", net)
    assert same_tensor(net.weight.detach(), tensor)


def test_files_of_torch_save_hold_the_same_tensors(tmp_path: Path) -> None:
    tensor = packed(3, 4)
    torch.save({"net": {"w": tensor}}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    assert same_tensor(ckptfmt.torch.load(tmp_path / "a.ckptfmt")["net"]["w"], tensor)
    export(tmp_path / "a.ckptfmt", tmp_path / "b.pth")
    assert same_tensor(torch.load(tmp_path / "b.pth")["net"]["w"], tensor)
