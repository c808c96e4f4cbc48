"""States of live objects, in the form that is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ckptfmt._core.torch.distributed.wrappers import plain_state
from ckptfmt._core.torch.state.parameter_names import NAMES_KEY, ParameterNames, group_names, groups_of, parameter_names
from ckptfmt._core.training.stateful import Stateful

__all__ = ["capture_components"]


def capture_components(components: Mapping[str, Stateful]) -> dict[str, Any]:
    """Return the state dict of each component. Nothing is copied: the tensors are the live ones.

    Modules are unwrapped (DDP, `torch.compile`), so the names of their tensors are those of the model itself. The
    parameter groups of each optimizer identify its parameters: `param_names` contains the full name of each one, such
    as
    `net.0.weight` for the component `net`, or None for a parameter outside all components.
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
    """Return an optimizer's state dict with the names added; unchanged if its form is unknown or there are no names."""
    groups = state.get("param_groups") if isinstance(state, Mapping) else None
    if not isinstance(groups, list) or len(groups) != len(names) or not any(map(any, names)):
        return state
    for group, own in zip(groups, names, strict=True):
        if not isinstance(group, Mapping) or len(group.get("params", ())) != len(own):
            return state
    named = [{**group, NAMES_KEY: list(own)} for group, own in zip(groups, names, strict=True)]
    return {**state, "param_groups": named}
