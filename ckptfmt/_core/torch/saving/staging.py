"""Copies of a state with tensors on the CPU or CUDA devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from ckptfmt._core.torch.tensors.adapter import memory_of, new_tensor
from ckptfmt._core.training.saving.staging import HostStaging, PendingCopy, copy_all

__all__ = ["DeviceStaging"]


class DeviceStaging(HostStaging):
    """Memory for one copy of a state, reused for the next.

    Where CUDA is in use, it is page-locked, and copies from devices use a separate stream, after the work already
    queued.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pinned = False
        self._streams: dict[int, torch.cuda.Stream] = {}

    def _allocate(self, nbytes: int) -> memoryview:
        pinned = _cuda_in_use()
        memory = memory_of(_allocate(nbytes, pinned=pinned))
        self._pinned = pinned
        return memory

    def _suits(self, memory: memoryview) -> bool:
        return super()._suits(memory) and (self._pinned or not _cuda_in_use())

    def _make(self, copies: Sequence[PendingCopy]) -> None:
        if not _cuda_in_use():
            super()._make(copies)
            return
        with self._side_streams():  # the current stream of a copy is thread-local
            copy_all(copies)

    @contextlib.contextmanager
    def _side_streams(self) -> Iterator[None]:
        """Use a separate stream for copies from each CUDA device, and wait for them at the end."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.cuda.device(torch.cuda.current_device()))
            for device in range(torch.cuda.device_count()):
                stream = self._streams.get(device)
                if stream is None:
                    stream = self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # it has none
                stream.wait_stream(torch.cuda.current_stream(device))
                stack.enter_context(torch.cuda.stream(stream))
            yield
            for stream in self._streams.values():
                stream.synchronize()


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # it has no annotations


def _allocate(nbytes: int, *, pinned: bool) -> torch.Tensor:
    if pinned:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    return new_tensor((nbytes,), torch.uint8)
