"""Modules with complex parameters and buffers, of which a file holds real and imaginary parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import ckptfmt.torch
from ckptfmt.torch import Checkpointer


class Complex(nn.Module):
    """A module with tensors of one dtype, alone or beside real ones."""

    def __init__(self, dtype: torch.dtype, value: float, *, mixed: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 2), complex(value, -value), dtype=dtype).t())
        self.register_buffer("scalar", torch.tensor(complex(value, 1.0), dtype=dtype))
        if mixed:
            self.bias = nn.Parameter(torch.full((4,), value))


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")  # PyTorch says so of each complex32
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128])
def test_they_are_restored_and_resumed(tmp_path: Path, dtype: torch.dtype, mixed: bool) -> None:
    saved = Complex(dtype, 2.0, mixed=mixed)
    ckptfmt.torch.save({"net": saved.state_dict()}, tmp_path / "a.ckptfmt")
    restored = Complex(dtype, 0.0, mixed=mixed)
    ckptfmt.torch.restore(tmp_path / "a.ckptfmt", {"net": restored})
    assert_equal(restored, saved)

    run = Checkpointer(tmp_path / "run", {"net": saved}, background=False)
    run.resume(quiet=True)
    run.save()
    run.close()
    resumed = Complex(dtype, 0.0, mixed=mixed)
    again = Checkpointer(tmp_path / "run", {"net": resumed})
    again.resume(quiet=True)
    again.close()
    assert_equal(resumed, saved)


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for name, tensor in other.state_dict().items():
        found = one.state_dict()[name]
        assert (
            torch.equal(torch.view_as_real(found), torch.view_as_real(tensor))
            if tensor.is_complex()
            else (torch.equal(found, tensor))
        ), name
