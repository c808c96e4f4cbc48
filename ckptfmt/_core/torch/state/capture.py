"""The states of live objects, as they are to be saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ckptfmt._core.torch.distributed.wrappers import plain_state
from ckptfmt._core.torch.state.parameter_names import NAMES_KEY, ParameterNames, group_names, groups_of, parameter_names
from ckptfmt._core.training.stateful import Stateful

__all__ = ["capture_components"]


def capture_components(components: Mapping[str, Stateful]) -> dict[str, Any]:
    """Return the state dict of each component. Nothing is copied: tensors are the live ones.

    Modules are taken out of their wrappers (DDP, `torch.compile`), so the names of their tensors are those of the
    model itself. The parameter groups of each optimizer say whose state is whose: `param_names` holds the full name
    of each parameter, such as `net.0.weight` for the component `net`, None for one that is in no component.
    """
    names = parameter_names(components)
    return {name: _capture(component, names) for name, component in components.items()}


def _capture(component: Stateful, names: ParameterNames) -> Any:
    if isinstance(component, nn.Module):
        return plain_state(component)
    state = component.state_dict()
    groups = groups_of(component)
    return state if groups is None else _with_names(state, group_names(groups, names))


def _with_names(state: Any, names: list[list[str | None]]) -> Any:
    """Return an optimizer's state dict with the names in it; one that is of no known form, or without names, as is."""
    groups = state.get("param_groups") if isinstance(state, Mapping) else None
    if not isinstance(groups, list) or len(groups) != len(names) or not any(map(any, names)):
        return state
    for group, own in zip(groups, names, strict=True):
        if not isinstance(group, Mapping) or len(group.get("params", ())) != len(own):
            return state
    named = [{**group, NAMES_KEY: list(own)} for group, own in zip(groups, names, strict=True)]
    return {**state, "param_groups": named}
