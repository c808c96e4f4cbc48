"""Sparse tensors as typed values and back (spec 11.6)."""

from __future__ import annotations

from typing import Any

import torch

from ckptfmt.format.packing import Typed
from ckptfmt.format.trees import SPARSE_COMPRESSED, SPARSE_COO

__all__ = ["LAYOUTS", "decode", "encode"]

LAYOUTS: dict[str, torch.layout] = {
    name: getattr(torch, name.removeprefix("torch.")) for name in (SPARSE_COO, *SPARSE_COMPRESSED)
}
"""The layout behind each type name."""

_BY_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_INDEX_DTYPES = {SPARSE_COO: (torch.int64,)} | dict.fromkeys(SPARSE_COMPRESSED, (torch.int32, torch.int64))


def encode(tensor: torch.Tensor) -> Typed:
    """Return a sparse tensor as its parts, which are plain tensors and share its memory."""
    tensor = tensor.detach()
    size = list(tensor.shape)
    if tensor.layout is torch.sparse_coo:
        # The public accessors refuse a tensor that is not coalesced.
        parts: dict[str, Any] = {"indices": tensor._indices(), "values": tensor._values()}
        return Typed(SPARSE_COO, {**parts, "size": size, "is_coalesced": tensor.is_coalesced()})
    if tensor.layout in _BY_ROWS:
        parts = {"compressed_indices": tensor.crow_indices(), "plain_indices": tensor.col_indices()}
    else:
        parts = {"compressed_indices": tensor.ccol_indices(), "plain_indices": tensor.row_indices()}
    return Typed(str(tensor.layout), {**parts, "values": tensor.values(), "size": size})


def decode(typed: Typed) -> torch.Tensor:
    """Return the sparse tensor of a typed value whose parts are of the right types.

    Raises:
        RuntimeError: The parts do not fit together, say an index is beyond the size. Other standard errors
            come from PyTorch, too.
    """
    parts = dict(typed.value)
    for key in ("indices", "compressed_indices", "plain_indices"):
        if key in parts and parts[key].dtype not in _INDEX_DTYPES[typed.name]:  # PyTorch would convert them
            raise TypeError(f"{key} are {parts[key].dtype}")
    if typed.name == SPARSE_COO:
        return torch.sparse_coo_tensor(**parts, check_invariants=True)
    return torch.sparse_compressed_tensor(**parts, layout=LAYOUTS[typed.name], check_invariants=True)
