"""Full names of an optimizer's parameters, such as `net.0.weight`, by identity.

PyTorch's optimizers identify their parameters only by position. A position changes its meaning when a parameter is
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

NAMES_KEY = "param_names"  # PyTorch's key in optimizers built from named parameters
ParameterNames = Mapping[int, tuple[str, ...]]
"""Id of a parameter -> all its full names. Tied parameters have several, and the first one is saved."""


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
    """Return the parameter groups of an optimizer, or of an object that exposes those of one; None for others."""
    groups = getattr(component, "param_groups", None)
    if not isinstance(groups, list) or not all(_is_group(group) for group in groups):
        return None
    return groups


def group_names(groups: list[dict[str, Any]], names: ParameterNames) -> list[list[str | None]]:
    """Return one name for each parameter of each group; None for a parameter without a unique name.

    A parameter outside all modules has the name that was passed to the optimizer, if that is unique.
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
