"""Conversion of sparse tensors to typed values and back (spec 11.6)."""

from __future__ import annotations

from typing import Any

import torch

from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.sparse import SPARSE_COMPRESSED, SPARSE_COO

__all__ = ["LAYOUTS", "decode", "encode"]

LAYOUTS: dict[str, torch.layout] = {
    name: getattr(torch, name.removeprefix("torch.")) for name in (SPARSE_COO, *SPARSE_COMPRESSED)
}
"""Layout for each type name."""

_BY_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_IN_BLOCKS = (torch.sparse_bsr, torch.sparse_bsc)


def encode(tensor: torch.Tensor) -> Typed:
    """Return a sparse tensor as its parts, plain tensors that share its memory."""
    tensor = tensor.detach()
    size = list(tensor.shape)
    if tensor.layout is torch.sparse_coo:
        # The public accessors refuse an uncoalesced tensor.
        parts: dict[str, Any] = {"indices": tensor._indices(), "values": tensor._values()}
        return Typed(SPARSE_COO, {**parts, "size": size, "is_coalesced": tensor.is_coalesced()})
    if tensor.layout in _BY_ROWS:
        parts = {"compressed_indices": tensor.crow_indices(), "plain_indices": tensor.col_indices()}
    else:
        parts = {"compressed_indices": tensor.ccol_indices(), "plain_indices": tensor.row_indices()}
    return Typed(str(tensor.layout), {**parts, "values": tensor.values(), "size": size})


def decode(typed: Typed) -> torch.Tensor:
    """Return the sparse tensor of a typed value whose parts have the right types, after a check of their consistency.

    Raises:
        ValueError: A block has no elements.
        RuntimeError: The parts do not fit together, for example an index is beyond the size (11.11). PyTorch may raise
            other standard errors too.
    """
    parts = dict(typed.value)
    if typed.name == SPARSE_COO:
        return torch.sparse_coo_tensor(**parts, check_invariants=True)
    layout = LAYOUTS[typed.name]
    if layout in _IN_BLOCKS:
        _check_blocks(parts["compressed_indices"], parts["values"])
    return torch.sparse_compressed_tensor(**parts, layout=layout, check_invariants=True)


def _check_blocks(compressed_indices: torch.Tensor, values: torch.Tensor) -> None:
    """Check that blocks have elements: PyTorch divides by their sizes, and a division by zero crashes the process."""
    batch = compressed_indices.dim() - 1
    if 0 in values.shape[max(0, batch) :][1:3]:
        raise ValueError(f"its blocks have no elements: its values have shape {list(values.shape)}")
