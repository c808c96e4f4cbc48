"""PyTorch's adapter does what every adapter has to do, on each kind of device that is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ckptfmt._core.torch.saving.staging import DeviceStaging
from ckptfmt._core.torch.tensors.adapter import TorchAdapter
from ckptfmt._core.torch.tensors.dtypes import DTYPES, PACKED
from ckptfmt.testing.adapters import AdapterTests

DEVICES = [name for name, there in {"cuda": torch.cuda.is_available()}.items() if there]


class TestTorchAdapter(AdapterTests):
    dtypes = tuple(name for name, dtype in DTYPES.items() if dtype not in PACKED)
    packed_dtypes = tuple(name for name, dtype in DTYPES.items() if dtype in PACKED)
    staging = DeviceStaging

    @pytest.fixture
    def adapter(self) -> TorchAdapter:
        return TorchAdapter()

    def layouts(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {f"on {device}": tensor.to(device) for device in DEVICES}
        if tensor.ndim:
            found["every other"] = torch.cat([tensor[:, None]] * 2, dim=1)[:, 0]
        if tensor.ndim > 1:
            found["transposed"] = tensor.transpose(0, -1).contiguous().transpose(0, -1)
            found |= {f"transposed on {device}": found["transposed"].to(device) for device in DEVICES}
        if tensor.is_complex():
            found["conjugate"] = tensor.conj().resolve_conj().conj()
        return found

    def same_tensors(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {"detached": tensor.detach(), "a view": tensor.view(tensor.shape)}
        if tensor.dtype.is_floating_point:
            found["a parameter"] = torch.nn.Parameter(tensor)
        return found

    def views(self, square: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {"rows": square[:2], "transposed": square.T, "flat": square.view(-1)}
        if square.dtype not in (torch.uint8, torch.complex64):
            found["bits"] = square.view(torch.uint8)
        if square.is_complex():
            found["conjugate"] = square.conj()
        return found

    def values(self) -> dict[str, Any]:
        return {
            "size": torch.Size([2, 3]),
            "dtype": torch.bfloat16,
            "device": torch.device("cuda", 1),
        }

    def refused(self) -> dict[str, Any]:
        return {
            "meta": torch.empty(2, device="meta"),
            "a module": torch.nn.Linear(2, 2),
            "a generator": torch.Generator(),
            "lazy": torch.nn.LazyLinear(2).weight,
        }
