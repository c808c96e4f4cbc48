"""The role of each component in training: weights, optimizer, scheduler, random states, position in the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.packing import TensorRef, Typed
from ckptfmt._core.interop.training_facts import count
from ckptfmt._core.ops.inspection.generator_states import generators_in, holds_generators
from ckptfmt._core.ops.inspection.optimizers import is_optimizer
from ckptfmt._core.ops.report_json import tree_json

__all__ = [
    "PlaceInfo",
    "RandomInfo",
    "Role",
    "SchedulerInfo",
    "look_at_place",
    "look_at_random",
    "look_at_scheduler",
    "role_of",
]


class Role(StrEnum):
    """What part a component plays."""

    WEIGHTS = "weights"
    OPTIMIZER = "optimizer"
    SCHEDULER = "scheduler"
    SCALER = "scaler"
    RANDOM = "rng"
    PROGRESS = "progress"
    VARIABLES = "variables"
    """Values that the loop carries on: tensors and plain values that belong to no object."""
    OTHER = "other"


_RANDOM = "rng"
_PROGRESS = "progress"
_VARIABLES = "variables"


def role_of(name: str, tree: object, tensors: Mapping[str, TensorSource]) -> Role:
    """Return the role of a component.

    Args:
        name: Its name.
        tree: Its tree; None if it is a flat mapping of tensors.
        tensors: Its tensors by name.
    """
    if name == _VARIABLES:
        return Role.VARIABLES
    if name == _RANDOM or holds_generators(dict(tensors) if tree is None else tree, tensors):
        return Role.RANDOM
    if tree is None:
        return Role.WEIGHTS if tensors else Role.VARIABLES  # the value None is no flat mapping
    if is_optimizer(tree):
        return Role.OPTIMIZER
    if isinstance(tree, dict):
        if "last_epoch" in tree:
            return Role.SCHEDULER
        if {"scale", "_growth_tracker"} <= tree.keys():
            return Role.SCALER
        if name == _PROGRESS and "step" in tree:
            return Role.PROGRESS
    leaves = list(_leaves(tree))
    if leaves and all(isinstance(leaf, TensorRef) for leaf in leaves):
        return Role.WEIGHTS if isinstance(tree, dict) else Role.VARIABLES
    return Role.VARIABLES if not isinstance(tree, dict | list | tuple | Typed) else Role.OTHER


def _leaves(tree: object) -> Iterator[object]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, list | tuple):
            pending.extend(node)
        elif isinstance(node, Typed):
            pending.append(node.value)
        elif node is not None:
            yield node


@dataclass(frozen=True)
class SchedulerInfo:
    """A learning rate scheduler.

    Attributes:
        component: Name of its component.
        kind: `CosineAnnealingLR`, `StepLR`, ...; None if the state does not show it.
        last_epoch: Number of its steps, as it counts them.
        last_lr: The learning rates that it set last, one for each group.
        options: Its other values that are numbers, text, or short lists of them.
    """

    component: str
    kind: str | None
    last_epoch: object
    last_lr: tuple[object, ...]
    options: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """Return the scheduler in JSON: the attributes under their names (see `tree_json`), `kind` may be null."""
        return {
            "component": self.component,
            "kind": self.kind,
            "last_epoch": tree_json(self.last_epoch),
            "last_lr": tree_json(self.last_lr),
            "options": {name: tree_json(value) for name, value in self.options.items()},
        }


_SHORT_LIST = 16
_SCHEDULERS: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (kind, frozenset(keys.split()))
    for kind, keys in (
        ("CosineAnnealingWarmRestarts", "T_0 T_mult"),
        ("CosineAnnealingLR", "T_max eta_min"),
        ("OneCycleLR", "total_steps _schedule_phases"),
        ("CyclicLR", "total_size step_ratio"),
        ("ReduceLROnPlateau", "patience num_bad_epochs"),
        ("SequentialLR", "_schedulers _milestones"),
        ("LambdaLR or MultiplicativeLR", "lr_lambdas"),
        ("MultiStepLR", "milestones gamma"),
        ("StepLR", "step_size gamma"),
        ("LinearLR", "start_factor end_factor"),
        ("PolynomialLR", "power total_iters"),
        ("ConstantLR", "factor total_iters"),
        ("ExponentialLR", "gamma"),
    )
)


def look_at_scheduler(component: str, tree: Mapping[object, object]) -> SchedulerInfo:
    """Return what the state of a scheduler shows."""
    kind = next((name for name, needed in _SCHEDULERS if needed <= tree.keys()), None)
    last = tree.get("_last_lr")
    options = {
        key: value
        for key, value in tree.items()
        if isinstance(key, str) and not key.startswith("_") and key != "last_epoch" and _is_short(value)
    }
    rates = tuple(last) if isinstance(last, list | tuple) and _is_short(last) else ()
    return SchedulerInfo(component, kind, tree["last_epoch"], rates, options)


def _is_short(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= _SHORT_LIST and all(isinstance(item, int | float | str) for item in value)
    return isinstance(value, int | float | str) and not isinstance(value, bool)


@dataclass(frozen=True)
class RandomInfo:
    """Saved states of random generators.

    Attributes:
        component: Name of the component.
        generators: Their names, such as `python`, `numpy MT19937`, `torch`, `cuda of 2 devices`.
    """

    component: str
    generators: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `component`, `generators` (array of strings)."""
        return {"component": self.component, "generators": list(self.generators)}


def look_at_random(component: str, tree: object, tensors: Mapping[str, TensorSource]) -> RandomInfo:
    """Return which generators' states a component holds; those of several processes are named once."""
    found = dict.fromkeys(generators_in(dict(tensors) if tree is None else tree, tensors))
    return RandomInfo(component, tuple(found))


@dataclass(frozen=True)
class PlaceInfo:
    """The position in the data.

    Attributes:
        component: Name of the component.
        step: Steps done since the start of the run.
        epoch: Epochs finished.
        batch: Batches done in the unfinished epoch; None between two epochs.
        batches: Number of batches in an epoch, if known.
    """

    component: str
    step: int | None
    epoch: int | None
    batch: int | None
    batches: int | None

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: the attributes under their names, each null if unknown."""
        return {
            "component": self.component,
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "batches": self.batches,
        }


def look_at_place(component: str, tree: Mapping[object, object]) -> PlaceInfo:
    """Return the place in the data that a `Checkpointer` noted."""
    begun = tree.get("pass")
    inside = begun if isinstance(begun, dict) else {}
    return PlaceInfo(
        component,
        step=count(tree.get("step")),
        epoch=count(tree.get("epoch")),
        batch=count(inside.get("consumed")),
        batches=count(inside.get("batches")),
    )
