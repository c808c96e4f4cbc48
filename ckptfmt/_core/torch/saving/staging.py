"""A copy of the state of one moment, so that training can go on while it is being written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from ckptfmt._core.container.planning import SMALL_BYTES, MemberPlan, Part, SavePlan
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt._core.system.workers import CORES, Workers
from ckptfmt._core.torch.tensors.adapter import new_tensor

__all__ = ["Staging"]

# The data of each member lie as they will lie in the file, so that they can be written from here as they are.
_ALIGNMENT = 4096
_BATCH_BYTES = 4 << 20


class _Copy(NamedTuple):
    """A part that is to be copied, and where to."""

    part: Part
    target: memoryview


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
        copies: list[_Copy] = []
        with collector_paused():
            for member in plan.members:
                nbytes = _staged_bytes(member)
                members.append(_stage_member(member, buffer[position : position + nbytes], copies))
                position += nbytes
        if _cuda_in_use():  # which stream a copy goes through is a matter of the thread
            with self._side_streams():
                _make(copies)
        else:
            with Workers(CORES, "ckptfmt-stage") as workers:
                for _ in workers.in_order(partial(_make, batch) for batch in _batches(copies)):
                    pass
        return replace(plan, members=tuple(members))

    def _reserve(self, nbytes: int) -> memoryview:
        """Return aligned memory of this length."""
        pinned = _cuda_in_use()
        if self._start() + nbytes > self._memory.numel() or (pinned and not self._memory.is_pinned()):
            self._memory = torch.empty(0, dtype=torch.uint8)  # the old memory goes before the new one comes
            self._memory = _allocate(nbytes + _ALIGNMENT, pinned=pinned)
        start = self._start()
        return self._memory.numpy().data[start : start + nbytes]

    def _start(self) -> int:
        """Return where the memory is aligned first."""
        return -self._memory.data_ptr() % _ALIGNMENT

    @contextlib.contextmanager
    def _side_streams(self) -> Iterator[None]:
        """Let copies from each CUDA device go through a stream of their own; at the end, wait for them."""
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


def _allocate(nbytes: int, *, pinned: bool) -> torch.Tensor:
    if pinned:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    return new_tensor((nbytes,), torch.uint8)


def _batches(copies: Sequence[_Copy]) -> Iterator[list[_Copy]]:
    """Yield copies in batches that are worth a turn of a thread."""
    batch: list[_Copy] = []
    nbytes = 0
    for copy in copies:
        batch.append(copy)
        nbytes += copy.part.nbytes
        if nbytes >= _BATCH_BYTES:
            yield batch
            batch, nbytes = [], 0
    yield batch


def _make(copies: Iterable[_Copy]) -> None:
    for part, target in copies:
        assert part.copy_into is not None  # or there would be nothing to copy
        part.copy_into(target)


def _stage_member(member: MemberPlan, buffer: memoryview, copies: list[_Copy]) -> MemberPlan:
    """Return the plan of a member that reads from `buffer`, once the copies that are added here are made."""
    parts = []
    position = 0
    for part in member.parts:
        if part.copy_into is None:
            parts.append(part)
            continue
        nbytes = part.nbytes
        copy = buffer[position : position + nbytes]
        copies.append(_Copy(part, copy))
        parts.append(Part(nbytes, part.split, copy.tobytes if nbytes <= SMALL_BYTES else copy.toreadonly))
        position += nbytes
    return replace(member, parts=parts)
