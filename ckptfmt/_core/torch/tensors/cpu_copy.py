"""Copies between CPU tensors of any layout and flat bytes, without PyTorch's threads.

Our workers call this. A copy by PyTorch would start a team of OpenMP threads for each of them, and where the system has
no threads left, libgomp ends the process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["copy_in", "copy_out"]

_Array = np.ndarray[Any, np.dtype[Any]]

# NumPy lacks some dtypes of PyTorch: to move values, their bits are enough.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def copy_out(tensor: torch.Tensor, buffer: memoryview) -> None:
    """Copy the elements of a CPU tensor, in C order, to memory of their length."""
    values = _values(tensor)
    np.copyto(_shaped(np.frombuffer(buffer, np.uint8), values), values)


def copy_in(flat: _Array, tensor: torch.Tensor) -> None:
    """Copy bytes that are the elements of a CPU tensor, in C order, to their places in it.

    Args:
        flat: The bytes, of dtype uint8.
        tensor: The tensor.
    """
    if tensor.dtype == torch.bool:  # every byte but 0 is true (spec 9.8); PyTorch knows only 1
        flat = np.not_equal(flat, 0).view(np.uint8)
    memory = _memory(tensor)
    np.copyto(memory, _as_stored(_shaped(flat, memory), tensor))


def _values(tensor: torch.Tensor) -> _Array:
    return _as_stored(_memory(tensor), tensor)


def _memory(tensor: torch.Tensor) -> _Array:
    """Return a view of the elements as they lie in memory; as integers, if that is what they stand for."""
    tensor = tensor.detach()
    if not (tensor.is_conj() or tensor.is_neg()):
        return tensor.view(_INTEGERS[tensor.element_size()]).numpy()
    if tensor.is_conj():
        tensor = tensor.conj()  # a view: the mark is taken away, and the memory stays
    if tensor.is_neg():
        tensor = torch._neg_view(tensor)
    return tensor.numpy()


def _as_stored(elements: _Array, tensor: torch.Tensor) -> _Array:
    """Apply what a tensor's marks say of its memory: conjugate, negate. Applied twice, it changes nothing."""
    if tensor.is_conj():
        elements = np.conjugate(elements)
    return np.negative(elements) if tensor.is_neg() else elements


def _shaped(flat: _Array, like: _Array) -> _Array:
    return flat.view(like.dtype).reshape(like.shape)
