"""Encoding of PyTorch's tensors and values in checkpoints, and decoding (spec 9, 11.6)."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy
from torch.torch_version import TorchVersion

from ckptfmt._core.container.adapter_set import AdapterSet
from ckptfmt._core.container.adapters import TensorLeaf
from ckptfmt._core.container.numpy_adapter import NumpyAdapter
from ckptfmt._core.container.planning import SMALL_BYTES
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.dtypes import COMPLEX_PARTS
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.torch.tensors import sparse
from ckptfmt._core.torch.tensors.cpu_copy import copy_out
from ckptfmt._core.torch.tensors.dtypes import COMPLEX, DTYPES, PACKED, PLAIN, shape_in_torch
from ckptfmt.errors import Problem, StateError, error_for

__all__ = ["TORCH_ADAPTERS", "TorchAdapter", "memory_of", "new_tensor"]

_ALIGNMENT = 64
_LARGE_BYTES = 4 << 20

_DTYPE_BY_NAME = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


class TorchAdapter:
    """Adapter for PyTorch's tensors and values. Tensors are read into CPU memory."""

    @property
    def marker(self) -> None:
        """See `container.adapters.Encoder.marker`: tensors have no marker."""

    def encode(self, value: object, path: str) -> object:
        """Return the form in which a value is stored, or NotImplemented for an unknown type.

        Raises:
            StateError: The format does not support a tensor or object of PyTorch; the error has a hint.
        """
        match value:
            case torch.Tensor():
                return _encode_tensor(value, path)
            case torch.Size():
                return Typed("torch.Size", list(value))
            case torch.dtype():
                return Typed("torch.dtype", str(value).removeprefix("torch."))
            case torch.device():
                return Typed("torch.device", str(value))
            case TorchVersion():
                return str(value)
            case torch.nn.Module() | torch.optim.Optimizer() | torch.optim.lr_scheduler.LRScheduler():
                raise StateError(path, f"an object of {type(value)}", "store what its state_dict() returns")
            case torch.Generator():
                raise StateError(path, f"an object of {type(value)}", "store what its get_state() returns")
        return NotImplemented

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        """Return a new CPU tensor and its writable flat bytes.

        Raises:
            UnsupportedVersionError: This PyTorch version lacks the dtype, or packs its elements and does not support
                the shape.
            FormatError: PyTorch does not support the shape: no elements, but huge dimensions.
        """
        own = shape_in_torch(dtype, shape)
        if own is None:
            what = "dtype" if dtype not in DTYPES else f"tensor of shape {list(shape)}"
            message = f"PyTorch {torch.__version__} has no {what} for {dtype}; read its bytes with Component.read_bytes"
            raise error_for(Problem("tensor-dtype", message))
        try:
            tensor = new_tensor(own, DTYPES[dtype])
        except RuntimeError as error:
            if 0 not in shape:  # not enough memory
                raise
            why = str(error).partition("\n")[0]
            raise error_for(Problem("tensor-shape", f"PyTorch cannot create a tensor of its shape: {why}")) from error
        return tensor, memory_of(tensor)

    def view(self, dtype: str, shape: tuple[int, ...], memory: memoryview) -> None:
        """Return None: PyTorch has no read-only memory, and a write to this memory would crash the process."""

    def decode(self, typed: Typed) -> object:
        """Return the value that a typed value represents; an unknown one unchanged (spec 11.8).

        Raises:
            FormatError: With code `typed-value`: PyTorch refuses the value.
        """
        try:
            match typed.name:
                case name if name in COMPLEX_PARTS:
                    return torch.view_as_complex(typed.value)
                case name if name in sparse.LAYOUTS:
                    return sparse.decode(typed)
                case "torch.Size":
                    return torch.Size(typed.value)
                case "torch.dtype":
                    return _DTYPE_BY_NAME.get(f"torch.{typed.value}", typed)
                case "torch.device":
                    return _decode_device(typed)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:  # raised by PyTorch's checks
            why = str(error).partition("\n")[0]
            raise error_for(Problem("typed-value", f"PyTorch refuses a {typed.name} value: {why}")) from error
        return typed


TORCH_ADAPTERS = AdapterSet(TorchAdapter(), NumpyAdapter(), {"torch": TorchAdapter}, always_mark=True)
"""Adapters for states with PyTorch tensors. NumPy arrays in them are marked and restored as NumPy arrays."""


def _encode_tensor(tensor: torch.Tensor, path: str) -> object:
    plain = type(tensor) is torch.Tensor or type(tensor) is torch.nn.Parameter
    if plain and tensor.is_cpu and tensor.dtype in PLAIN and tensor.layout is torch.strided and not tensor.is_nested:
        return _leaf(tensor)  # the common case
    # A subclass may compute its values, or contain more than values: its bytes would be incomplete.
    if not plain:
        kind = "a DTensor, sharded over ranks" if hasattr(tensor, "full_tensor") else f"a tensor of {type(tensor)}"
        raise StateError(path, kind, _advice_for_subclass(tensor))
    if tensor.is_nested:
        raise StateError(path, "a nested tensor", "store the list that its unbind() returns")
    if tensor.is_quantized:
        raise StateError(path, "a quantized tensor", "store its int_repr() and its scales and zero points")
    if tensor.is_meta:
        raise StateError(path, "a tensor on the meta device, which has no values", "initialize or omit it")
    if tensor.layout in sparse.LAYOUTS.values():
        return sparse.encode(tensor)
    if tensor.layout is not torch.strided:
        raise StateError(path, f"a tensor of layout {tensor.layout}", "store what its to_dense() returns")
    if tensor.dtype in COMPLEX:
        parts = torch.view_as_real(tensor.detach().resolve_conj().resolve_neg())
        return Typed(COMPLEX[tensor.dtype], _leaf(parts))
    if tensor.dtype in PACKED:
        return _packed_leaf(tensor, path)
    if tensor.dtype not in PLAIN:
        raise StateError(path, f"a tensor of {tensor.dtype}", "view it as a dtype of the spec's section 9")
    return _leaf(tensor)


def _advice_for_subclass(tensor: torch.Tensor) -> str:
    if is_lazy(tensor):
        return "save after the first forward pass, which initializes it"
    if hasattr(tensor, "full_tensor"):
        return "store what its full_tensor() returns"
    return "store plain tensors from which it can be rebuilt"


@dataclass(slots=True, eq=False)
class _TorchLeaf(TensorLeaf):
    """Leaf for a PyTorch tensor."""

    tensor: torch.Tensor

    @property
    def alias(self) -> Hashable:
        """See `TensorLeaf.alias`: the same elements of the same memory."""
        tensor = self.tensor
        if not tensor.numel():
            return self  # no memory: nothing to share
        place = tensor.data_ptr() if tensor.is_cpu else (tensor.device, tensor.data_ptr())
        flags = (tensor.is_conj(), tensor.is_neg()) if tensor.is_complex() or tensor.is_neg() else None
        return place, tensor.shape, tensor.stride(), tensor.dtype, flags

    def read(self) -> memoryview:
        """See `TensorLeaf.read`: the tensor's own memory, if it has the layout of the file."""
        tensor = self.tensor
        if _lies_ready(tensor):
            return memory_of(tensor)
        if tensor.is_cpu:
            memory = memory_of(new_tensor((tensor.nbytes,), torch.uint8))
            copy_out(tensor, memory)
            return memory
        return _flat_bytes(tensor.detach().cpu().resolve_conj().resolve_neg().contiguous())

    def read_copy(self) -> bytes:
        """See `TensorLeaf.read_copy`."""
        tensor = self.tensor
        return ctypes.string_at(tensor.data_ptr(), tensor.nbytes) if _lies_ready(tensor) else bytes(self.read())

    def window(self, number: int, nbytes: int) -> BytesLike:
        """See `TensorLeaf.window`: only that piece is copied, from any device."""
        tensor = self.tensor.detach()
        if not tensor.numel() or _lies_ready(tensor):
            return TensorLeaf.window(self, number, nbytes)
        if tensor.is_contiguous():
            tensor = tensor.view(-1)
        rows = max(1, nbytes * len(tensor) // tensor.nbytes)
        start = number % -(-len(tensor) // rows) * rows
        return _flat_bytes(tensor[start : start + rows].cpu().resolve_conj().resolve_neg().contiguous())

    def copy_into(self, buffer: memoryview) -> None:
        """See `TensorLeaf.copy_into`: in one pass; from a device asynchronously, if the memory is pinned."""
        tensor = self.tensor
        if not tensor.numel():
            return
        if _lies_ready(tensor):
            if tensor.nbytes <= SMALL_BYTES:
                buffer[:] = self.read_copy()
                return
            # As bytes, which takes one pass in this thread and lets others run. PyTorch would wake all its threads,
            # which spin while they wait: on a busy machine, that takes several times as long.
            np.copyto(np.frombuffer(buffer, np.uint8), np.frombuffer(memory_of(tensor), np.uint8))
            return
        if tensor.is_cpu:
            copy_out(tensor, buffer)
            return
        target = torch.frombuffer(buffer, dtype=tensor.dtype)
        if target.data_ptr() % tensor.element_size():  # after a tensor of odd length
            buffer[:] = self.read()
        else:
            target.view(tensor.shape).copy_(tensor.detach(), non_blocking=True)


def _leaf(tensor: torch.Tensor) -> TensorLeaf:
    return _TorchLeaf(PLAIN[tensor.dtype], tuple(tensor.shape), tensor)


class _PackedLeaf(_TorchLeaf):
    """Leaf for a tensor with several of the format's elements per PyTorch element, as bytes."""

    __slots__ = ()

    @property
    def alias(self) -> Hashable:
        """See `TensorLeaf.alias`: the same bytes with another dtype are another tensor."""
        return self.dtype, super().alias


def _packed_leaf(tensor: torch.Tensor, path: str) -> TensorLeaf:
    element = PACKED[tensor.dtype]
    if not tensor.ndim:
        found = f"a tensor of {tensor.dtype} without dimensions"
        raise StateError(path, found, "store its one-dimensional view: view(1)")
    shape = (*tensor.shape[:-1], element.packed * tensor.shape[-1])
    return _PackedLeaf(element.name, shape, tensor.detach().view(torch.uint8))


def _lies_ready(tensor: torch.Tensor) -> bool:
    """Return whether the elements are in memory in C order, without pending conjugation or negation."""
    return tensor.is_cpu and tensor.is_contiguous() and not tensor.is_neg() and not tensor.is_conj()


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor as a flat, writable view of bytes, which keeps the tensor alive.

    NumPy would take several times as long, which matters with tens of thousands of tensors.
    """
    memory = (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())
    memory.tensor = tensor  # type: ignore[attr-defined]  # a ctypes object can hold a reference
    return memoryview(memory).cast("B")


def new_tensor(
    shape: tuple[int, ...] | torch.Size, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return an uninitialized tensor.

    A large one on the CPU uses NumPy's memory: NumPy requests huge pages, without which the first access to memory
    takes
    several times as long.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _LARGE_BYTES or torch.device(device).type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    memory = torch.from_numpy(np.empty(nbytes + _ALIGNMENT, np.uint8))
    start = -memory.data_ptr() % _ALIGNMENT
    return memory[start : start + nbytes].view(dtype).view(shape)


def _flat_bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data


def _decode_device(typed: Typed) -> torch.device | Typed:
    """Return the device, or the typed value itself if this PyTorch version lacks a device of that name (11.8)."""
    try:
        device = torch.device(typed.value)
    except RuntimeError:
        return typed
    return device if str(device) == typed.value else typed  # PyTorch wraps an index beyond its range
