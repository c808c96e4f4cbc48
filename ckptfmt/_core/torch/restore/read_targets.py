"""Destinations of a tensor's bytes: its memory directly, or through a buffer its device or layout."""

from __future__ import annotations

import ctypes
import threading
from functools import partial
from typing import Any

import numpy as np
import torch

from ckptfmt._core.container.chunk_reader import ReadTarget, new_buffer
from ckptfmt._core.torch.tensors.adapter import memory_of
from ckptfmt._core.torch.tensors.cpu_copy import copy_in

__all__ = ["fits", "staging_buffer", "target_of"]

_SMALL_BYTES = 64 << 10  # so many come through a buffer anyway

_Array = np.ndarray[Any, np.dtype[Any]]


def fits(live: object, saved: torch.Tensor) -> bool:
    """Return whether a live tensor can take the values of a saved one unchanged."""
    return (
        type(live) in (torch.Tensor, torch.nn.Parameter)
        and isinstance(live, torch.Tensor)
        and live.layout is torch.strided
        and live.dtype == saved.dtype
        and live.shape == saved.shape
    )


def target_of(tensor: torch.Tensor) -> ReadTarget:
    """Return the target of a tensor."""
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg() or tensor.dtype == torch.bool:
        return _Assembled(tensor)
    if tensor.is_cpu:
        return memory_of(tensor) if tensor.nbytes > _SMALL_BYTES else partial(_put, tensor)
    return _ToDevice(tensor)


def _put(tensor: torch.Tensor, start: int, data: memoryview) -> None:
    """Copy bytes into a contiguous CPU tensor. With many tensors, a function takes less memory than a view of each."""
    (ctypes.c_char * len(data)).from_address(tensor.data_ptr() + start).raw = data  # type: ignore[assignment]  # any bytes


class _ToDevice:
    """Copies each piece to its position on the device."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._flat = tensor.detach().view(-1).view(torch.uint8)

    def __call__(self, start: int, data: memoryview) -> None:
        piece = torch.frombuffer(data, dtype=torch.uint8)
        self._flat[start : start + len(data)].copy_(piece, non_blocking=True)
        if self._flat.is_cuda:
            torch.cuda.current_stream(self._flat.device).synchronize()  # the buffer is reused


class _Assembled:
    """Collects a tensor with another element order or form in memory, and copies it once complete."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor.detach()
        self._whole: _Array | None = None
        self._missing = tensor.nbytes
        self._lock = threading.Lock()

    def __call__(self, start: int, data: memoryview) -> None:
        with self._lock:
            if self._whole is None:
                self._whole = np.empty(self._tensor.nbytes, np.uint8)
            self._whole[start : start + len(data)] = np.frombuffer(data, np.uint8)
            self._missing -= len(data)
            if not self._missing:
                self._put(self._whole)
                self._whole = None

    def _put(self, whole: _Array) -> None:
        tensor = self._tensor
        if tensor.is_cpu:
            copy_in(whole, tensor)
            return
        memory = torch.empty(tensor.shape, dtype=tensor.dtype)
        copy_in(whole, memory)
        tensor.copy_(memory)


def staging_buffer(nbytes: int) -> memoryview:
    """Return the buffer of a worker: page-locked where CUDA is in use, so that copies to a device are direct."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # it has no annotations
        return new_buffer(nbytes)
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data
