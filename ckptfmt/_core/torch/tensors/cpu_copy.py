"""Copies between CPU tensors of any layout and flat bytes, without PyTorch's threads.

Worker threads call these functions. PyTorch's copy would start a team of OpenMP threads for each worker, and if the
system has no threads left, libgomp ends the process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["copy_in", "copy_out"]

_Array = np.ndarray[Any, np.dtype[Any]]

# NumPy lacks some of PyTorch's dtypes: a copy needs only the bits.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def copy_out(tensor: torch.Tensor, buffer: memoryview) -> None:
    """Copy the elements of a CPU tensor, in C order, to memory of the same length."""
    values = _values(tensor)
    np.copyto(_shaped(np.frombuffer(buffer, np.uint8), values), values)


def copy_in(flat: _Array, tensor: torch.Tensor) -> None:
    """Copy bytes, the elements of a CPU tensor in C order, into the tensor.

    Args:
        flat: The bytes, of dtype uint8.
        tensor: The tensor.
    """
    if tensor.dtype == torch.bool:  # every nonzero byte is true (spec 9.8); PyTorch requires 1
        flat = np.not_equal(flat, 0).view(np.uint8)
    memory = _memory(tensor)
    np.copyto(memory, _as_stored(_shaped(flat, memory), tensor))


def _values(tensor: torch.Tensor) -> _Array:
    return _as_stored(_memory(tensor), tensor)


def _memory(tensor: torch.Tensor) -> _Array:
    """Return a view of the elements in memory; as integers where NumPy lacks the dtype."""
    tensor = tensor.detach()
    if not (tensor.is_conj() or tensor.is_neg()):
        return tensor.view(_INTEGERS[tensor.element_size()]).numpy()
    if tensor.is_conj():
        tensor = tensor.conj()  # a view: clears the conjugate bit, leaves the memory
    if tensor.is_neg():
        tensor = torch._neg_view(tensor)
    return tensor.numpy()


def _as_stored(elements: _Array, tensor: torch.Tensor) -> _Array:
    """Apply a tensor's conjugate and negative bits to its elements. Applied twice, it changes nothing."""
    if tensor.is_conj():
        elements = np.conjugate(elements)
    return np.negative(elements) if tensor.is_neg() else elements


def _shaped(flat: _Array, like: _Array) -> _Array:
    return flat.view(like.dtype).reshape(like.shape)
