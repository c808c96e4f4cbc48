"""When two values of PyTorch states are the same: types, order, dtypes, layouts and bits."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ckptfmt import PerRank
from tests import strategies


def same(a: Any, b: Any) -> bool:
    """Say whether two states are bit for bit the same; mappings may be of different types."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and same_tensor(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, PerRank) and isinstance(b, PerRank):
        return same(a.values, b.values)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray | np.generic):
        return strategies.same(a, b)
    return type(a) is type(b) and bool(a == b or a != a)


def same_tensor(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Say whether two tensors have the same dtype, shape, layout and bits."""
    if (a.dtype, a.shape, a.layout) != (b.dtype, b.shape, b.layout):
        return False
    if a.layout is torch.sparse_coo:
        parts = a.is_coalesced() == b.is_coalesced() and same_tensor(a._indices(), b._indices())
        return parts and same_tensor(a._values(), b._values())
    if a.layout is not torch.strided:
        by_rows = a.layout in (torch.sparse_csr, torch.sparse_bsr)
        names = ("crow_indices", "col_indices") if by_rows else ("ccol_indices", "row_indices")
        return all(same_tensor(getattr(a, name)(), getattr(b, name)()) for name in (*names, "values"))
    return bits(a) == bits(b)


def bits(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a dense tensor's values in C order, made without ckptfmt."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
