"""Assignment of saved optimizer state to parameters: by name, never by an ambiguous position."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from ckptfmt._core.torch.restore.parameter_matching import Live, Saved, pair, read_saved
from ckptfmt._core.torch.state.parameter_names import NAMES_KEY, ParameterNames

__all__ = ["OptimizerPlan", "load_optimizer", "plan_optimizer"]

# Older PyTorch versions do not have these options, and newer ones fill them in.
_FILLED_IN = frozenset(
    {"amsgrad", "capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused", "maximize", "nesterov"}
)
# Options of the implementation, not the result, of a step: an optimizer of the same kind may lack them.
_SWITCHES = _FILLED_IN - {"amsgrad", "nesterov"}
_HYPERPARAMETERS = frozenset(
    name
    for kind in vars(torch.optim).values()
    if isinstance(kind, type) and issubclass(kind, Optimizer)
    for name in inspect.signature(kind).parameters
) - {"params"}
_LIKE_THE_PARAMETER = frozenset(
    {
        *("acc_delta", "ax", "exp_avg", "exp_avg_sq", "exp_inf", "grad_avg", "max_exp_avg_sq", "momentum_buffer"),
        *("prev", "square_avg", "step_size", "sum"),
    }
)
"""Entries of a parameter's state that have its shape, in the optimizers of PyTorch and in many others."""

ShapeOf = Callable[[str], torch.Size | None]


@dataclass(frozen=True)
class OptimizerPlan:
    """Plan of what an optimizer restores.

    Attributes:
        state: State for its `load_state_dict`; None if nothing fits.
        source: For each of its groups, the number of the saved group whose options it takes; None: it keeps its own.
        differences: What is not restored, one line each.
        notes: What is restored differently from how it was saved, one line each.
    """

    state: dict[str, Any] | None
    source: tuple[int | None, ...]
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan_optimizer(
    optimizer: object, groups: Sequence[dict[str, Any]], names: ParameterNames, saved: object, shape_of: ShapeOf
) -> OptimizerPlan:
    """Plan which saved state goes to which parameter. Changes nothing.

    A parameter takes the state saved under one of its names, from any group, if the shape fits. A group takes the
    options
    (`lr` and others) of the saved group that most of its parameters come from. In a state without names, positions
    identify the parameters, and all counts and shapes must agree.

    Args:
        optimizer: The optimizer, or an object that represents one.
        groups: Its parameter groups.
        names: Full names by id of the parameter.
        saved: State in the checkpoint.
        shape_of: Returns the saved shape of the parameter with a full name; None if unknown.
    """
    old = read_saved(saved)
    if old is None:
        return _nothing(groups, [": no optimizer state dict in the checkpoint"])
    new = Live(groups, names)
    pairs = pair(new, old)
    if pairs is None:
        here, there = [len(group["params"]) for group in groups], [len(group["params"]) for group in old.groups]
        advice = "; without names they cannot be matched" if here == there else ""
        found = f".param_groups: {here} parameters per group in the optimizer, {there} in the checkpoint{advice}"
        return _nothing(groups, [found])
    source = _sources(new, old, pairs)
    if kinds := list(_other_kind(optimizer, groups, old, source)):
        return _nothing(groups, kinds)
    if spanning := list(_one_for_all(optimizer, new, old, pairs)):
        return _nothing(groups, spanning)
    misfits = _misfits(new, old, pairs, shape_of)
    differences = [
        *(f".state[{new.label(at)}]: in the optimizer, not in the checkpoint" for at in new.places if at not in pairs),
        *misfits.values(),
        *(f".state[{old.label(at)}]: in the checkpoint, not in the optimizer" for at in old.unused(pairs)),
        *(f".state[{key!r}]: in the checkpoint, without a parameter" for key in old.strays),
    ]
    if misfits and not old.named:
        return _nothing(groups, list(misfits.values()))
    state = _assemble(new, old, {at: there for at, there in pairs.items() if at not in misfits}, source)
    return OptimizerPlan(state, source, tuple(differences), tuple(_regrouped(new, old, pairs, source)))


def load_optimizer(optimizer: Any, groups: Sequence[dict[str, Any]], state: dict[str, Any]) -> None:
    """Load the state of a plan into an optimizer."""
    # Some optimizers modify the mappings that they load.
    optimizer.load_state_dict({**state, "state": dict(state["state"])})
    if not isinstance(optimizer, Optimizer):
        return
    for group, saved_group in zip(groups, state["param_groups"], strict=True):
        for parameter, number in zip(group["params"], saved_group["params"], strict=True):
            _undo_casts(optimizer.state.get(parameter, {}), state["state"].get(number, {}))
    # It has stepped: a scheduler that steps next must not warn about the wrong order.
    optimizer._opt_called = True  # type: ignore[attr-defined]  # where LRScheduler looks


def _undo_casts(live: dict[str, Any], saved: Mapping[str, Any]) -> None:
    """Restore the saved tensors in their saved dtype.

    `Optimizer.load_state_dict` casts them to the dtype of the parameter, which loses bits of float32 moments of
    bfloat16
    parameters. Only its cast of `step` is kept: it depends on the chosen implementation.
    """
    for key, value in saved.items():
        here = live.get(key)
        if key == "step" or not isinstance(value, torch.Tensor) or not isinstance(here, torch.Tensor):
            continue
        if here.dtype != value.dtype:
            live[key] = value.to(here.device)


def _nothing(groups: Sequence[object], differences: list[str]) -> OptimizerPlan:
    return OptimizerPlan(None, (None,) * len(groups), tuple(differences))


def _sources(new: Live, old: Saved, pairs: Mapping[int, int]) -> tuple[int | None, ...]:
    """Return for each live group the saved group that most of its parameters come from; the first one in a tie."""
    votes = [Counter[int]() for _ in new.groups]
    for here, there in pairs.items():
        votes[new.places[here].group][old.places[there].group] += 1
    source: list[int | None] = []
    for number, found in enumerate(votes):
        empty = not new.groups[number]["params"] and number < len(old.groups) and not old.groups[number]["params"]
        most = max(found.values(), default=0)
        best = [group for group, count in found.items() if count == most]
        source.append(min(best) if best else number if empty else None)
    return tuple(source)


def _other_kind(
    optimizer: object, groups: Sequence[dict[str, Any]], old: Saved, source: Sequence[int | None]
) -> Iterator[str]:
    """Yield a line if the options of the saved groups belong to another kind of optimizer."""
    defaults = getattr(optimizer, "defaults", {})
    without: dict[str, None] = {}
    beyond: dict[str, None] = {}
    for group, number in zip(groups, source, strict=True):
        if number is not None:
            options = old.groups[number]
            without |= dict.fromkeys(key for key in defaults if key not in options and key not in _FILLED_IN)
            extra = (key for key in options if key not in group and key in _HYPERPARAMETERS - _SWITCHES)
            beyond |= dict.fromkeys(extra)
    if without or beyond:
        parts = (["without " + ", ".join(without)] if without else []) + (
            ["with " + ", ".join(beyond)] if beyond else []
        )
        yield f".param_groups: of another kind of optimizer than {type(optimizer).__name__}: {', '.join(parts)}"


def _one_for_all(optimizer: object, new: Live, old: Saved, pairs: Mapping[int, int]) -> Iterator[str]:
    """Yield a line if parameters have changed and one state covers all of them, in their order."""
    if list(pairs.items()) == [(place, place) for place in range(len(old.places))] and len(pairs) == len(new.places):
        return
    if isinstance(optimizer, torch.optim.LBFGS) and old.state:
        yield ".state: LBFGS keeps one state of all parameters, and the parameters or their order differ"
    if old.extras:
        keys = ", ".join(map(str, old.extras))
        yield f".{keys}: may depend on the order of the parameters, and the parameters or their order differ"


def _misfits(new: Live, old: Saved, pairs: Mapping[int, int], shape_of: ShapeOf) -> dict[int, str]:
    """Return a line for each pair whose state and parameter differ in shape."""
    found = {}
    for here, there in pairs.items():
        state = old.state_at(there)
        shape = new.places[here].parameter.shape
        name = old.places[there].name
        known = shape_of(name) if name is not None and state else None
        others = [known] if known is not None and known != shape else []
        for key, value in state.items():
            if key in _LIKE_THE_PARAMETER and isinstance(value, torch.Tensor) and value.shape != shape:
                others.append(value.shape)
        if others:
            lines = f"{list(shape)} in the optimizer, {list(others[0])} in the checkpoint"
            found[here] = f".state[{new.label(here)}]: {lines}"
    return found


def _regrouped(new: Live, old: Saved, pairs: Mapping[int, int], source: Sequence[int | None]) -> Iterator[str]:
    """Yield a line for each group whose options come from a group with other parameters."""
    members: list[set[int]] = [set() for _ in new.groups]
    for here, there in pairs.items():
        members[new.places[here].group].add(old.places[there].group)
    for number, (group, origin) in enumerate(zip(new.groups, source, strict=True)):
        if origin is None:
            if group["params"]:
                yield f".param_groups[{number}]: new, keeps its own options"
        elif len(members[number]) > 1 or source.count(origin) > 1:
            options = old.groups[origin]
            changed = [
                f"{key} {group[key]!r} -> {options[key]!r}"
                for key in group
                if key in options and key not in ("params", NAMES_KEY) and _differ(group[key], options[key])
            ]
            yield f".param_groups[{number}]: takes the options of group {origin}: {', '.join(changed) or 'equal'}"


def _differ(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or not torch.equal(a.cpu(), b.cpu())
    return bool(a != b)


def _assemble(new: Live, old: Saved, pairs: Mapping[int, int], source: Sequence[int | None]) -> dict[str, Any]:
    """Return the state dict that assigns each saved state to its parameter."""
    groups = []
    for number, (group, origin) in enumerate(zip(new.groups, source, strict=True)):
        options = dict(group if origin is None else old.groups[origin])
        options["params"] = new.numbers(number)
        if NAMES_KEY in group and NAMES_KEY in options:
            options[NAMES_KEY] = group[NAMES_KEY]  # here: the next save must equal that without a resume
        else:
            options.pop(NAMES_KEY, None)
        groups.append(options)
    number_of = {old.places[there].number: new.places[here].number for here, there in pairs.items()}
    state = {number_of[key]: value for key, value in old.state.items() if key in number_of}
    state |= {key: value for key, value in old.state.items() if not isinstance(key, int)}
    return {**old.extras, "state": state, "param_groups": groups}
