"""Fitting of saved weights into a similar model.

Names are mapped first, then each tensor of the model is looked up. A mismatch is a difference, unless the caller allows
it: for tensors that may be missing, or of which only the common part is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ckptfmt._core.torch.distributed.wrappers import without_wrapper_names
from ckptfmt._core.torch.restore.modules import kind_of, shared_names
from ckptfmt.errors import UsageError

__all__ = ["Fit", "Names", "Rename", "fit_weights", "map_names"]

Rename = Mapping[str, str | None] | Callable[[str], str | None]
"""Old name -> new name, of tensors or of prefixes up to a dot; None to omit them."""
Names = bool | Collection[str]
"""All, none, or the names that match one of some patterns (`head.*`)."""


@dataclass(frozen=True)
class Fit:
    """What a model takes from a saved state dict.

    Attributes:
        state: The values to load, by the model's plain names.
        converted: Tensors converted to another dtype, one line each.
        resized: Tensors of which only the common part is taken, one line each.
        kept: Tensors of the model that keep their values, one line each.
        unused: Saved tensors that are not taken, one line each.
        differences: Mismatches that are not allowed, one line each. Load nothing unless this is empty.
    """

    state: Mapping[str, Any]
    converted: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()


def fit_weights(
    live: Mapping[str, Any],
    saved: Mapping[str, Any],
    *,
    rename: Rename | None = None,
    strip_prefix: str = "",
    partial: Names = False,
    resize: Names = False,
) -> Fit:
    """Return what a model takes from a saved state dict. Changes nothing.

    Args:
        live: The state dict of the model, with plain names.
        saved: The saved one.
        rename: New names for saved ones, applied after the prefix is stripped.
        strip_prefix: Prefix of saved names that the model's names do not have; other names stay unchanged.
        partial: Tensors that may be missing, unexpected, or of another shape.
        resize: Tensors of another size of which only the common part (the first rows, columns, ...) is taken; the rest
            keeps its values.

    Raises:
        UsageError: Two saved names become one.
    """
    saved = without_wrapper_names(map_names(saved, rename, strip_prefix), live)
    state: dict[str, Any] = {}
    converted: list[str] = []
    resized: list[str] = []
    kept: list[str] = []
    unused: list[str] = []
    differences: list[str] = []
    for name, value in live.items():
        if name not in saved:
            if not _comes_by_another_name(name, live, saved):
                (kept if _is_among(name, partial) else differences).append(f"{name}: in the model, not in the file")
            continue
        there = saved[name]
        if not isinstance(value, torch.Tensor) or is_lazy(value):
            state[name] = there
        elif not isinstance(there, torch.Tensor):
            differences.append(f"{name}: {kind_of(value)} in the model, {kind_of(there)} in the file")
        elif value.shape == there.shape:
            state[name] = there
            if value.dtype != there.dtype:
                converted.append(f"{name}: {_dtype(there)} -> {_dtype(value)}")
        elif _is_among(name, resize) and value.dim() == there.dim():
            state[name] = _common_part(value, there)
            resized.append(f"{name}: {list(there.shape)} -> {list(value.shape)}")
        else:
            shapes = f"{name}: {list(value.shape)} in the model, {list(there.shape)} in the file"
            (kept if _is_among(name, partial) else differences).append(shapes)
    for name in saved:
        if name not in live:
            (unused if _is_among(name, partial) else differences).append(f"{name}: in the file, not in the model")
    return Fit(state, tuple(converted), tuple(resized), tuple(kept), tuple(unused), tuple(differences))


def map_names(saved: Mapping[str, Any], rename: Rename | None, strip_prefix: str = "") -> dict[str, Any]:
    """Return a state dict by its new names, without those renamed to None.

    Raises:
        UsageError: Two saved names become one.
    """
    mapped: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in saved.items():
        new = _renamed(name.removeprefix(strip_prefix), rename)
        if new is None:
            continue
        if new in mapped:
            raise UsageError(f"rename: both {origin[new]!r} and {name!r} become {new!r}")
        mapped[new] = value
        origin[new] = name
    return mapped


def _renamed(name: str, rename: Rename | None) -> str | None:
    if rename is None:
        return name
    if callable(rename):
        return rename(name)
    for old in _beginnings(name):
        if old in rename:
            new = rename[old]
            return None if new is None else f"{new}{name.removeprefix(old)}".lstrip(".")
    return name


def _beginnings(name: str) -> Iterator[str]:
    """Yield a name, then its prefixes up to each dot, the longest first."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _comes_by_another_name(name: str, live: Mapping[str, Any], saved: Mapping[str, Any]) -> bool:
    """Return whether a tensor of the model was saved under another of its names: tied weights."""
    value = live[name]
    tied = [pair for pair in shared_names(live) if name in pair] if isinstance(value, torch.Tensor) else []
    return any(other in saved for pair in tied for other in pair)


def _common_part(live: torch.Tensor, saved: torch.Tensor) -> torch.Tensor:
    part = tuple(slice(0, min(here, there)) for here, there in zip(live.shape, saved.shape, strict=True))
    whole = live.detach().clone()
    whole[part] = saved[part].to(whole)
    return whole


def _is_among(name: str, names: Names) -> bool:
    if isinstance(names, bool):
        return names
    return any(fnmatchcase(name, pattern) for pattern in ([names] if isinstance(names, str) else names))


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
