"""PyTorch dtypes and shapes for those of the format: one PyTorch element may contain several of the format."""

from __future__ import annotations

import torch

from ckptfmt._core.format import dtypes

__all__ = ["COMPLEX", "DTYPES", "PACKED", "PLAIN", "shape_in_torch"]

DTYPES: dict[str, torch.dtype] = {
    element.name: getattr(torch, element.torch)
    for element in dtypes.DTYPES.values()
    if element.torch is not None and hasattr(torch, element.torch)
}
"""PyTorch's dtype for each dtype of the spec's section 9, without those that this PyTorch version lacks."""

PLAIN = {dtype: name for name, dtype in DTYPES.items() if dtypes.DTYPES[name].packed == 1}
"""Name of each PyTorch dtype whose elements are those of the format."""

PACKED = {dtype: dtypes.DTYPES[name] for name, dtype in DTYPES.items() if dtype not in PLAIN}
"""Element type of each PyTorch dtype that packs several elements into one, in the last dimension."""

COMPLEX = {  # safetensors lacks these (11.6)
    getattr(torch, element.torch): element.name
    for element in dtypes.ELEMENTS.values()
    if element.torch is not None and element.parts is not None
}
"""Name of each complex PyTorch dtype that is stored as its real and imaginary parts."""


def shape_in_torch(dtype: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of the PyTorch tensor for a dtype and shape of the format; None if unsupported."""
    if dtype not in DTYPES:
        return None
    packed = dtypes.DTYPES[dtype].packed
    if packed == 1:
        return shape
    if not shape or shape[-1] % packed:
        return None
    return (*shape[:-1], shape[-1] // packed)
