"""A framework of a few lines, its adapter, and adapters of it that have a fault each."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ckptfmt._core.container.adapters import TensorLeaf
from ckptfmt._core.format.packing import Typed
from ckptfmt.errors import FormatError, Problem, StateError, error_for

_DTYPES = {"I16": 2, "F32": 4}
_MOST_DIMENSIONS = 8


@dataclass(eq=False)
class Cells:
    """A tensor: elements in memory that other tensors may share, from the first one to the last or backwards."""

    dtype: str
    shape: tuple[int, ...]
    memory: bytearray
    backwards: bool = False

    def content(self) -> bytes:
        if not self.backwards:
            return bytes(self.memory)
        nbytes = _DTYPES[self.dtype]
        return b"".join(self.memory[at : at + nbytes] for at in reversed(range(0, len(self.memory), nbytes)))

    def reversed(self) -> Cells:
        """Return the same elements in memory of their own, where they lie the other way round."""
        turned = Cells(self.dtype, self.shape, self.memory, not self.backwards).content()
        return Cells(self.dtype, self.shape, bytearray(turned), not self.backwards)


@dataclass(frozen=True)
class Ratio:
    """A value that is no tensor."""

    over: int
    under: int


@dataclass(slots=True, eq=False)
class CellsLeaf(TensorLeaf):
    cells: Cells

    @property
    def alias(self) -> Hashable:
        return (id(self.cells.memory) if self.cells.memory else self, self.dtype, self.shape, self.cells.backwards)

    def read(self) -> memoryview:
        return memoryview(self.cells.content())


class CellsAdapter:
    @property
    def marker(self) -> None:
        return None

    def encode(self, value: object, path: str) -> object:
        if isinstance(value, Ratio):
            if not value.under:
                raise StateError(path, "a ratio with nothing below", "save its parts")
            return Typed("cells.Ratio", [value.over, value.under])
        return CellsLeaf(value.dtype, value.shape, value) if isinstance(value, Cells) else NotImplemented

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        if dtype not in _DTYPES:
            raise error_for(Problem("tensor-dtype", f"cells have no {dtype}"))
        if len(shape) > _MOST_DIMENSIONS:
            raise error_for(Problem("tensor-shape", f"cells have no {len(shape)} dimensions"))
        memory = bytearray(math.prod(shape) * _DTYPES[dtype])
        return Cells(dtype, shape, memory), memoryview(memory)

    def view(self, dtype: str, shape: tuple[int, ...], memory: memoryview) -> None:
        return None

    def decode(self, typed: Typed) -> object:
        return Ratio(*typed.value) if typed.name == "cells.Ratio" else typed


class ForgetsTheOrder(CellsAdapter):
    """It stores memory instead of elements."""

    def encode(self, value: object, path: str) -> object:
        straight = Cells(value.dtype, value.shape, value.memory) if isinstance(value, Cells) else value
        return super().encode(straight, path)


class TiesByValue(CellsAdapter):
    """It takes equal tensors for one."""

    def encode(self, value: object, path: str) -> object:
        if not isinstance(value, Cells):
            return super().encode(value, path)
        return _TiedLeaf(value.dtype, value.shape, value)


class _TiedLeaf(CellsLeaf):
    @property
    def alias(self) -> Hashable:
        return self.dtype, self.shape, self.cells.content()


class NeverTies(CellsAdapter):
    """It takes no two tensors for one."""

    def encode(self, value: object, path: str) -> object:
        if not isinstance(value, Cells):
            return super().encode(value, path)
        return _LonelyLeaf(value.dtype, value.shape, value)


class _LonelyLeaf(CellsLeaf):
    @property
    def alias(self) -> Hashable:
        return self


class IgnoresViews(CellsAdapter):
    """It takes tensors in the same memory for one."""

    def encode(self, value: object, path: str) -> object:
        if not isinstance(value, Cells):
            return super().encode(value, path)
        return _SameMemoryLeaf(value.dtype, value.shape, value)


class _SameMemoryLeaf(CellsLeaf):
    @property
    def alias(self) -> Hashable:
        return id(self.cells.memory)


class MakesAnyDtype(CellsAdapter):
    """It takes unknown dtypes for one that it has."""

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        return super().empty(dtype if dtype in _DTYPES else "F32", shape)


class FailsForManyDimensions(CellsAdapter):
    """It ends in an error of its own for shapes that it lacks."""

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        try:
            return super().empty(dtype, shape)
        except FormatError as error:
            if len(shape) > _MOST_DIMENSIONS:
                raise OverflowError(len(shape)) from error
            raise


class GivesACopy(CellsAdapter):
    """What is written to the memory that it gives does not reach the tensor."""

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        cells, memory = super().empty(dtype, shape)
        return cells, memoryview(bytearray(memory))


class DropsEmptyDimensions(CellsAdapter):
    """It takes a scalar for a tensor of one element."""

    def encode(self, value: object, path: str) -> object:
        if isinstance(value, Cells) and not value.shape:
            value = Cells(value.dtype, (1,), value.memory)
        return super().encode(value, path)


class ClaimsEverything(CellsAdapter):
    """It takes the values of others."""

    def encode(self, value: object, path: str) -> object:
        encoded = super().encode(value, path)
        return repr(value) if encoded is NotImplemented else encoded


class LosesValues(CellsAdapter):
    """It does not make its own values again."""

    def decode(self, typed: Typed) -> object:
        return typed


class ExpressesTheInexpressible(CellsAdapter):
    """It stores what it must refuse."""

    def encode(self, value: object, path: str) -> object:
        return (
            Typed("cells.Ratio", [value.over, value.under]) if isinstance(value, Ratio) else super().encode(value, path)
        )


class SharesItsCopies(CellsAdapter):
    """It hands out the live memory where a copy is wanted."""

    def encode(self, value: object, path: str) -> object:
        if not isinstance(value, Cells):
            return super().encode(value, path)
        return _LazyLeaf(value.dtype, value.shape, value)


class _LazyLeaf(CellsLeaf):
    def copy_into(self, buffer: memoryview) -> None:
        buffer[: len(buffer) // 2] = self.read()[: len(buffer) // 2]


FAULTY = (
    ForgetsTheOrder,
    TiesByValue,
    NeverTies,
    IgnoresViews,
    MakesAnyDtype,
    FailsForManyDimensions,
    GivesACopy,
    DropsEmptyDimensions,
    ClaimsEverything,
    LosesValues,
    ExpressesTheInexpressible,
    SharesItsCopies,
)
