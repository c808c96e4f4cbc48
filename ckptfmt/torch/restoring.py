"""Putting a loaded state into live objects: all differences are found before anything is changed."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ckptfmt.errors import MismatchError

__all__ = ["Stateful", "check_components", "restore_components"]


@runtime_checkable
class Stateful(Protocol):
    """Anything that gives its state and takes it back: modules, optimizers, schedulers, scalers, your own."""

    def state_dict(self) -> Any:
        """Return the state, in values that the format can express."""

    def load_state_dict(self, state_dict: Any, /) -> object:
        """Take a state that `state_dict` returned."""


def check_components(components: Mapping[str, Stateful], state: Mapping[str, Any]) -> None:
    """Compare a state with the live objects that are to take it. Nothing is changed.

    Modules are compared by the names, shapes and dtypes of their tensors, optimizers by their parameter groups. What
    any other object takes, only it can tell.

    Raises:
        MismatchError: With every difference.
    """
    differences = [
        f"{name}{difference}"
        for name, component in components.items()
        if name in state
        for difference in _differences(component, state[name])
    ]
    if differences:
        raise MismatchError("the checkpoint does not fit the objects that are to take it", differences)


def restore_components(components: Mapping[str, Stateful], state: Mapping[str, Any]) -> None:
    """Give each component its state, if there is one. To be called after `check_components`."""
    for name, component in components.items():
        if name not in state:
            continue
        try:
            if isinstance(component, LRScheduler):
                component.load_state_dict(_with_types_of(component.state_dict(), state[name]))
            else:
                component.load_state_dict(state[name])
            if isinstance(component, Optimizer):
                _undo_casts(component, state[name])
                # It has stepped: a scheduler that steps next has no reason to warn of the wrong order.
                component._opt_called = True  # type: ignore[attr-defined]  # where LRScheduler looks
        except Exception as error:
            error.add_note(f"raised while the component {name!r} was restored; do not train on with these objects")
            raise


def _differences(component: Stateful, state: Any) -> Iterator[str]:
    if isinstance(component, torch.nn.Module):
        yield from _module_differences(component.state_dict(), state)
    elif isinstance(component, Optimizer):
        yield from _optimizer_differences(component.state_dict(), state)


def _module_differences(live: Mapping[str, Any], saved: Any) -> Iterator[str]:
    if not isinstance(saved, Mapping):
        yield f": a state dict is expected, the checkpoint has a {type(saved).__name__}"
        return
    for name in live:
        if name not in saved:
            yield f".{name}: in the model, not in the checkpoint"
    for name, value in saved.items():
        if name not in live:
            yield f".{name}: in the checkpoint, not in the model"
        elif isinstance(live[name], torch.Tensor) and not is_lazy(live[name]):
            here, there = _kind(live[name]), _kind(value)
            if here != there:
                yield f".{name}: {here} in the model, {there} in the checkpoint"


def _kind(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _optimizer_differences(live: Mapping[str, Any], saved: Any) -> Iterator[str]:
    try:
        here, there = _group_sizes(live), _group_sizes(saved)
    except (KeyError, TypeError):
        yield ": the checkpoint has no state dict of an optimizer"
        return
    if here != there:
        yield f".param_groups: {here} parameters per group in the optimizer, {there} in the checkpoint"


def _group_sizes(state: Mapping[str, Any]) -> list[int]:
    return [len(group["params"]) for group in state["param_groups"]]


def _with_types_of(live: Any, saved: Any) -> Any:
    """Return `saved` with the mapping types of `live`: a file knows one kind, MultiStepLR needs its Counter."""
    if isinstance(live, Mapping) and isinstance(saved, Mapping):
        fitted = {key: _with_types_of(live.get(key), value) for key, value in saved.items()}
        match live:
            case Counter() | OrderedDict():
                return type(live)(fitted)
            case defaultdict():
                return defaultdict(live.default_factory, fitted)
        return fitted
    if isinstance(live, list) and isinstance(saved, list) and len(live) == len(saved):
        return [_with_types_of(here, there) for here, there in zip(live, saved, strict=True)]
    return saved


def _undo_casts(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Give the optimizer the saved tensors in the dtype they were saved in.

    `Optimizer.load_state_dict` casts them to the dtype of the parameter, which loses bits of float32 moments that
    belong to bfloat16 parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    for parameter, number in zip(parameters, numbers, strict=True):
        for key, value in saved["state"].get(number, {}).items():
            live = optimizer.state[parameter].get(key)
            if isinstance(value, torch.Tensor) and isinstance(live, torch.Tensor) and live.dtype != value.dtype:
                optimizer.state[parameter][key] = value.to(live.device)
