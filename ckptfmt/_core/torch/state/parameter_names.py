"""Which parameter of an optimizer is which: full names such as `net.0.weight`, by identity.

PyTorch's optimizers know their parameters by position alone. A position means another parameter as soon as one is
added, removed or moved; a name does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ckptfmt._core.torch.distributed.wrappers import plain_namer, unwrap
from ckptfmt._core.training.stateful import Stateful

__all__ = ["NAMES_KEY", "ParameterNames", "group_names", "groups_of", "parameter_names"]

NAMES_KEY = "param_names"  # PyTorch's own, for optimizers that are made from named parameters
ParameterNames = Mapping[int, tuple[str, ...]]
"""The id of a parameter -> every full name it has; tied ones have several, and the first is the one to save."""


def parameter_names(components: Mapping[str, Stateful]) -> ParameterNames:
    """Return the full names of the parameters of all modules: component, a dot, and the plain name in it."""
    names: dict[int, tuple[str, ...]] = {}
    for component, module in components.items():
        if isinstance(module, nn.Module):
            inner = unwrap(module)
            plain = plain_namer(inner)
            for name, parameter in inner.named_parameters(remove_duplicate=False):
                names[id(parameter)] = (*names.get(id(parameter), ()), f"{component}.{plain(name)}")
    return names


def groups_of(component: object) -> list[dict[str, Any]] | None:
    """Return the parameter groups of an optimizer, or of an object that shows those of one; None for all others."""
    groups = getattr(component, "param_groups", None)
    if not isinstance(groups, list) or not all(_is_group(group) for group in groups):
        return None
    return groups


def group_names(groups: list[dict[str, Any]], names: ParameterNames) -> list[list[str | None]]:
    """Return one name for each parameter of each group; None for one that has none of its own.

    A parameter that is in no module goes by the name that the optimizer was given for it, if that is like no other.
    """
    given = [_own_names(group) for group in groups]
    taken = Counter(name for own in given for name in own) + Counter(name for all_ in names.values() for name in all_)
    return [
        [
            names[id(parameter)][0] if id(parameter) in names else own if taken[own] == 1 else None
            for parameter, own in zip(group["params"], owns, strict=True)
        ]
        for group, owns in zip(groups, given, strict=True)
    ]


def _own_names(group: Mapping[str, Any]) -> list[str | None]:
    own = group.get(NAMES_KEY)
    return list(own) if isinstance(own, list) and len(own) == len(group["params"]) else [None] * len(group["params"])


def _is_group(group: object) -> bool:
    return (
        isinstance(group, dict)
        and isinstance(group.get("params"), list)
        and all(isinstance(parameter, torch.Tensor) for parameter in group["params"])
    )
