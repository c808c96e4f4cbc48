"""The kind of optimizer that a state belongs to, and its settings, as far as the state shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ckptfmt._core.format.dtypes import ELEMENTS
from ckptfmt._core.format.packing import TensorRef
from ckptfmt._core.interop.base import ComponentSource
from ckptfmt._core.ops.report_json import tree_json

__all__ = ["GroupInfo", "OptimizerInfo", "is_optimizer", "look_at_optimizer", "parameters_of"]

_READ_STEPS = 64  # step counters read at most: they are all equal, or differ from the first ones on
_COUNTERS = frozenset({"step", "mu_product", "eta", "mu"})  # one number for a parameter, not one for each element


@dataclass(frozen=True)
class GroupInfo:
    """One parameter group.

    Attributes:
        parameters: Number of its parameters.
        names: Their names; None if the optimizer does not record them.
        options: Its hyperparameters.
    """

    parameters: int
    names: tuple[str, ...] | None
    options: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """Return the group in JSON: `parameters`, `names` (or null), `options` (see `tree_json`)."""
        return {
            "parameters": self.parameters,
            "names": None if self.names is None else list(self.names),
            "options": {name: tree_json(value) for name, value in self.options.items()},
        }


@dataclass(frozen=True)
class OptimizerInfo:
    """An optimizer.

    Attributes:
        component: Name of its component.
        kind: `AdamW`, `SGD`, ...; None if several kinds, or no known kind, have such a state.
        groups: Its parameter groups.
        with_state: Number of parameters that have a state; 0 before the first step.
        moments: Names of the tensors kept for parameters, such as `exp_avg`, and the number of parameters with each.
        steps: Smallest and largest step count of its parameters; None if not recorded.
    """

    component: str
    kind: str | None
    groups: tuple[GroupInfo, ...]
    with_state: int
    moments: Mapping[str, int]
    steps: tuple[int, int] | None

    @property
    def parameters(self) -> int:
        """Number of its parameters."""
        return sum(group.parameters for group in self.groups)

    def values(self, option: str) -> tuple[object, ...]:
        """Return the different values of a hyper-parameter in the groups, in their order."""
        found = [group.options[option] for group in self.groups if option in group.options]
        return tuple(value for number, value in enumerate(found) if value not in found[:number])

    def to_json(self) -> dict[str, object]:
        """Return the optimizer in JSON.

        Keys: `component`, `kind` (or null), `parameters`, `with_state` (counts), `moments` (object: name to number
        of parameters), `steps` (array of smallest and largest, or null), `groups` (array, see `GroupInfo.to_json`).
        """
        return {
            "component": self.component,
            "kind": self.kind,
            "parameters": self.parameters,
            "with_state": self.with_state,
            "moments": dict(self.moments),
            "steps": None if self.steps is None else list(self.steps),
            "groups": [group.to_json() for group in self.groups],
        }


def is_optimizer(tree: object) -> bool:
    """Say whether a tree is what PyTorch's optimizers give as their state."""
    if not isinstance(tree, dict) or not isinstance(tree.get("state"), dict):
        return False
    groups = tree.get("param_groups")
    return isinstance(groups, list) and all(isinstance(group, dict) and "params" in group for group in groups)


def look_at_optimizer(part: ComponentSource, tree: Any) -> OptimizerInfo:
    """Return what the state of an optimizer shows. Of its tensors, only a few step counters are read.

    Args:
        part: The component.
        tree: Its tree; `is_optimizer` says yes to it.

    Raises:
        FormatError: A step counter is damaged.
        StorageError: The file cannot be read.
    """
    groups = tuple(_group(group) for group in tree["param_groups"])
    states = [state for state in tree["state"].values() if isinstance(state, dict)]
    moments = Counter(name for state in states for name, value in state.items() if _is_moment(part, name, value))
    options = {name for group in groups for name in group.options}
    return OptimizerInfo(
        component=part.name,
        kind=_kind(options, {name for state in states for name in state}, groups),
        groups=groups,
        with_state=len(states),
        moments=dict(moments),
        steps=_steps(part, [state["step"] for state in states if "step" in state]),
    )


def parameters_of(tree: object) -> dict[str, str]:
    """Return the full name of the parameter that each tensor of an optimizer's state is kept for.

    Args:
        tree: The tree of a component. Empty for anything else than an optimizer that records names.
    """
    if not is_optimizer(tree):
        return {}
    assert isinstance(tree, dict)  # an optimizer's
    named: dict[object, str] = {}
    for group in tree["param_groups"]:
        names = _group(group).names
        if names is not None and isinstance(group["params"], list):
            named.update(zip(group["params"], names, strict=False))
    return {
        value.name: named[key]
        for key, state in tree["state"].items()
        if key in named and isinstance(state, dict)
        for value in state.values()
        if isinstance(value, TensorRef)
    }


def _group(group: Mapping[object, object]) -> GroupInfo:
    params, names = group["params"], group.get("param_names")
    noted = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return GroupInfo(
        parameters=len(params) if isinstance(params, list) else 0,
        names=tuple(names) if noted and isinstance(names, list) else None,
        options={
            key: value for key, value in group.items() if isinstance(key, str) and key not in ("params", "param_names")
        },
    )


def _is_moment(part: ComponentSource, name: object, value: object) -> bool:
    named = isinstance(name, str) and name not in _COUNTERS
    return named and isinstance(value, TensorRef) and value.name in part.tensors


def _steps(part: ComponentSource, counters: list[object]) -> tuple[int, int] | None:
    few = counters if len(counters) <= _READ_STEPS else counters[: _READ_STEPS // 2] + counters[-_READ_STEPS // 2 :]
    steps = [step for counter in few if (step := _number(part, counter)) is not None]
    return (min(steps), max(steps)) if steps else None


def _number(part: ComponentSource, value: object) -> int | None:
    """Return a step counter, which is a number, or a tensor of one."""
    if isinstance(value, TensorRef) and value.name in part.tensors:
        info = part.tensors[value.name]
        element = ELEMENTS.get(info.dtype)
        if info.elements != 1 or element is None or element.layout is None:
            return None
        value = element.number(info.read())
    whole = isinstance(value, int | float) and value == value and abs(value) < 2**63
    return int(value) if whole and isinstance(value, int | float) else None


# Kind, the hyper-parameters that only it has, and what it keeps for a parameter where these do not suffice. The
# first that fits counts. From the `defaults` of torch.optim, and of the Lion that most people use.
_KINDS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = tuple(
    (kind, frozenset(options.split()), frozenset(state.split()))
    for kind, options, state in (
        ("Muon", "ns_coefficients ns_steps", ""),
        ("Adafactor", "beta2_decay d", ""),
        ("Adadelta", "rho", ""),
        ("Adagrad", "lr_decay initial_accumulator_value", ""),
        ("ASGD", "lambd alpha t0", ""),
        ("Rprop", "etas step_sizes", ""),
        ("RMSprop", "alpha centered", ""),
        ("LBFGS", "history_size line_search_fn", ""),
        ("NAdam", "betas momentum_decay", ""),
        ("SGD", "momentum dampening nesterov", ""),
        ("Adamax", "betas", "exp_inf"),
        ("RAdam", "betas eps weight_decay decoupled_weight_decay", ""),
    )
)


def _kind(options: Iterable[str], state: Iterable[str], groups: tuple[GroupInfo, ...]) -> str | None:
    has, keeps = frozenset(options), frozenset(state)
    if {"betas", "amsgrad"} <= has:
        decoupled = [group.options.get("decoupled_weight_decay") for group in groups]
        if all(how is True for how in decoupled):
            return "AdamW"
        return "Adam" if all(how is False for how in decoupled) else "Adam or AdamW"  # PyTorch notes it since 2.7
    for kind, needed, kept in _KINDS:
        if needed <= has and kept <= keeps:
            return kind
    if "betas" in has and "eps" not in has:
        return "Lion"
    if {"betas", "eps"} <= has and "weight_decay" not in has:
        return "SparseAdam"
    return None
