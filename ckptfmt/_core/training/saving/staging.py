"""Copies of the state, so that training can continue while a checkpoint is written."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

from ckptfmt._core.container.numpy_adapter import NumpyAdapter
from ckptfmt._core.container.planning import SMALL_BYTES, ByteSource, MemberPlan, SavePlan
from ckptfmt._core.system.batches import batches
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt._core.system.workers import CORES, Workers

__all__ = ["HostStaging", "PendingCopy", "Staging", "copy_all"]

# The data of each member is laid out as in the file, so that it can be written from here unchanged.
_ALIGNMENT = 4096
_BATCH_BYTES = 4 << 20


class Staging(Protocol):
    """Copies a state from the live objects."""

    def copy(self, plan: SavePlan) -> SavePlan:
        """Return the same plan with copies of its tensors, which later changes do not affect.

        The plan of the previous call becomes invalid.

        Raises:
            StateError: The data of a tensor does not have the length that its dtype and shape require.
            MemoryError: There is not enough memory.
        """


class PendingCopy(NamedTuple):
    """A pending copy of a part to its destination."""

    part: ByteSource
    target: memoryview

    def make(self) -> None:
        """Copy it."""
        assert self.part.copy_into is not None  # otherwise there would be nothing to copy
        self.part.copy_into(self.target)


class HostStaging:
    """Host memory for one copy of a state, reused for the next. It is as large as the largest state so far."""

    def __init__(self) -> None:
        self._memory = memoryview(b"")

    @property
    def nbytes(self) -> int:
        """Size of the memory in bytes."""
        return self._memory.nbytes

    def copy(self, plan: SavePlan) -> SavePlan:
        """See `Staging.copy`."""
        buffer = self._reserve(sum(map(_staged_bytes, plan.members)))
        position = 0
        members = []
        copies: list[PendingCopy] = []
        with collector_paused():
            for member in plan.members:
                nbytes = _staged_bytes(member)
                members.append(_stage_member(member, buffer[position : position + nbytes], copies))
                position += nbytes
        self._make(copies)
        return replace(plan, members=tuple(members))

    def _allocate(self, nbytes: int) -> memoryview:
        """Return new memory of this length."""
        return NumpyAdapter().empty("U8", (nbytes,))[1]

    def _suits(self, memory: memoryview) -> bool:
        """Return whether memory is of the required kind."""
        return bool(memory.nbytes)

    def _make(self, copies: Sequence[PendingCopy]) -> None:
        """Make the copies, and return once all are done."""
        with Workers(CORES, "ckptfmt-stage") as workers:
            jobs = batches(copies, lambda copy: copy.part.nbytes, _BATCH_BYTES)
            for _ in workers.in_order(partial(copy_all, batch) for batch in jobs):
                pass

    def _reserve(self, nbytes: int) -> memoryview:
        """Return aligned memory of this length."""
        if not self._suits(self._memory) or _start(self._memory) + nbytes > self._memory.nbytes:
            self._memory = memoryview(b"")  # free the old memory before allocating the new one
            self._memory = self._allocate(nbytes + _ALIGNMENT)
        start = _start(self._memory)
        return self._memory[start : start + nbytes]


def copy_all(copies: Iterable[PendingCopy]) -> None:
    """Make copies, one after the other."""
    for copy in copies:
        copy.make()


def _start(memory: memoryview) -> int:
    """Return the first aligned offset in memory."""
    return -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _ALIGNMENT


def _staged_bytes(member: MemberPlan) -> int:
    nbytes = sum(part.nbytes for part in member.parts if part.copy_into is not None)
    return nbytes + -nbytes % _ALIGNMENT


def _stage_member(member: MemberPlan, buffer: memoryview, copies: list[PendingCopy]) -> MemberPlan:
    """Return the plan of a member that reads from `buffer`, and add the copies that fill it."""
    parts = []
    position = 0
    for part in member.parts:
        if part.copy_into is None:
            parts.append(part)
            continue
        nbytes = part.nbytes
        copy = buffer[position : position + nbytes]
        copies.append(PendingCopy(part, copy))
        parts.append(ByteSource(nbytes, part.split, copy.tobytes if nbytes <= SMALL_BYTES else copy.toreadonly))
        position += nbytes
    return replace(member, parts=parts)
