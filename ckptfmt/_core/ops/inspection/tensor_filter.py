"""Which tensors of a report, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from fnmatch import fnmatchcase

from ckptfmt._core.interop.base import TensorInfo

__all__ = ["TensorOrder", "choose_tensors", "matches"]


class TensorOrder(StrEnum):
    """How tensors are put in order."""

    FILE = "file"
    """The order of the file."""
    NAME = "name"
    """By component and name, numbers by their value."""
    SIZE = "size"
    """The largest first."""
    DTYPE = "dtype"
    """By dtype, and the largest first."""


def choose_tensors(
    tensors: Iterable[TensorInfo],
    *,
    patterns: Iterable[str] = (),
    dtypes: Iterable[str] = (),
    order: TensorOrder = TensorOrder.FILE,
) -> tuple[TensorInfo, ...]:
    """Return the tensors that match one of the patterns and have one of the dtypes, in order.

    Args:
        tensors: The tensors.
        patterns: Shell patterns for names (see `matches`); none: all.
        dtypes: Names of dtypes in any case; none: all.
        order: Their order.
    """
    wanted, kinds = tuple(patterns), {dtype.upper() for dtype in dtypes}
    chosen = [
        tensor
        for tensor in tensors
        if (not wanted or any(matches(tensor, pattern) for pattern in wanted))
        and (not kinds or tensor.dtype.upper() in kinds)
    ]
    return tuple(sorted(chosen, key=_KEYS[order]) if order in _KEYS else chosen)


def matches(tensor: TensorInfo, pattern: str) -> bool:
    """Say whether a shell pattern fits the name of a tensor, with the name of its component before it or not.

    `*.bias` fits `conv.bias` of the component `net`, and so do `net.conv.*` and `conv.bias`.
    """
    return fnmatchcase(tensor.name, pattern) or fnmatchcase(f"{tensor.component}.{tensor.name}", pattern)


def natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Return the key by which names are put in order with the numbers in them by their value."""
    return tuple(
        (False, int(part), part) if part.isascii() and part.isdigit() else (True, 0, part) for part in name.split(".")
    )


_KEYS: dict[TensorOrder, Callable[[TensorInfo], tuple[object, ...]]] = {
    TensorOrder.NAME: lambda tensor: (tensor.component, natural(tensor.name)),
    TensorOrder.SIZE: lambda tensor: (-tensor.nbytes,),
    TensorOrder.DTYPE: lambda tensor: (tensor.dtype, -tensor.nbytes),
}
