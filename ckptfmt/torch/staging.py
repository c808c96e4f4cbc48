"""A copy of the state of one moment, so that training can go on while it is being written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch

from ckptfmt.format.digest import BytesLike
from ckptfmt.planning import MemberPlan, Part, SavePlan

__all__ = ["Staging"]

# The data of each member lie as they will lie in the file, so that they can be written from here as they are.
_ALIGNMENT = 4096


class Staging:
    """Memory for one copy of a state, used again for the next.

    It is as large as the largest state so far. Where CUDA is in use it is page-locked, and copies from devices go
    through a stream of their own, behind the work that is queued already.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._streams: dict[int, torch.cuda.Stream] = {}

    @property
    def nbytes(self) -> int:
        """Size of the memory in bytes."""
        return self._memory.numel()

    def copy(self, plan: SavePlan) -> SavePlan:
        """Return the same plan with copies of its tensors: what happens to the tensors from now on is not in it.

        The last plan that came from here must be done with.

        Raises:
            StateError: A tensor does not give the bytes that its dtype and shape make.
        """
        buffer = self._reserve(sum(map(_staged_bytes, plan.members)))
        position = 0
        members = []
        with self._side_streams():
            for member in plan.members:
                nbytes = _staged_bytes(member)
                members.append(_copy_member(member, buffer[position : position + nbytes]))
                position += nbytes
        return replace(plan, members=tuple(members))

    def _reserve(self, nbytes: int) -> memoryview:
        pinned = _cuda_in_use()
        if nbytes > self._memory.numel() or (pinned and not self._memory.is_pinned()):
            self._memory = torch.empty(0, dtype=torch.uint8)  # the old memory goes before the new one comes
            self._memory = torch.empty(nbytes + _ALIGNMENT, dtype=torch.uint8, pin_memory=pinned)
        start = -self._memory.data_ptr() % _ALIGNMENT
        return self._memory.numpy().data[start : start + nbytes]

    @contextlib.contextmanager
    def _side_streams(self) -> Iterator[None]:
        """Let copies from each CUDA device go through a stream of their own; at the end, wait for them."""
        if not _cuda_in_use():
            yield
            return
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


def _staged_bytes(member: MemberPlan) -> int:
    nbytes = sum(part.nbytes for part in member.parts if part.copy_into is not None)
    return nbytes + -nbytes % _ALIGNMENT


def _copy_member(member: MemberPlan, buffer: memoryview) -> MemberPlan:
    parts = []
    position = 0
    for part in member.parts:
        if part.copy_into is None:
            parts.append(part)
            continue
        copy = buffer[position : position + part.nbytes]
        part.copy_into(copy)
        parts.append(_staged(part, copy))
        position += part.nbytes
    return replace(member, parts=parts)


def _staged(part: Part, copy: memoryview) -> Part:
    def read() -> BytesLike:
        return copy

    return replace(part, read=read, copy_into=None)
