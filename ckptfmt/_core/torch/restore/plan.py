"""Plan of a restore into live objects: finds all differences before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ckptfmt._core.torch.distributed.wrappers import plain_state, without_wrapper_names
from ckptfmt._core.torch.live_objects.generators import StatefulGenerator
from ckptfmt._core.torch.live_objects.live_values import LiveValues
from ckptfmt._core.torch.restore.lr_schedulers import compare_scheduler, fit_scheduler
from ckptfmt._core.torch.restore.modules import compare_module, load_module, same_bits
from ckptfmt._core.torch.restore.optimizers import OptimizerPlan, load_optimizer, plan_optimizer
from ckptfmt._core.torch.restore.raising import named_when_compared, named_when_restored
from ckptfmt._core.torch.state.empty_components import is_empty
from ckptfmt._core.torch.state.parameter_names import ParameterNames, groups_of, parameter_names
from ckptfmt._core.training.report import ComponentReport
from ckptfmt._core.training.stateful import Stateful
from ckptfmt.errors import MismatchError

__all__ = ["ComponentPlan", "LoadModule", "LoadOptimizer", "RestorePlan", "apply_components", "plan_restore"]

SameBits = Callable[[object, object], bool]


class Load(Protocol):
    """Restores a component."""

    def __call__(self) -> object:
        """Do it."""


@dataclass(frozen=True)
class LoadModule:
    """Restores a module.

    Attributes:
        module: The module.
        state: State to load, with plain names.
        strict: Whether the state is complete.
    """

    module: nn.Module
    state: Mapping[str, Any]
    strict: bool = True

    def __call__(self) -> None:
        """Do it."""
        load_module(self.module, self.state, strict=self.strict)


@dataclass(frozen=True)
class LoadOptimizer:
    """Restores an optimizer.

    Attributes:
        optimizer: The optimizer, or an object that represents one.
        groups: Its parameter groups.
        state: State dict to load.
    """

    optimizer: Any
    groups: Sequence[dict[str, Any]]
    state: dict[str, Any]

    def __call__(self) -> None:
        """Do it."""
        load_optimizer(self.optimizer, self.groups, self.state)


@dataclass(frozen=True)
class ComponentPlan:
    """Plan for one component.

    Attributes:
        name: Name of the component.
        load: Restores it; None: it stays unchanged.
        differences: What is not restored, one line each.
        notes: What is restored differently from how it was saved, one line each.
        per_rank: Paths of values that differ between ranks; this rank restores its own.
        empty: Whether its saved state is empty.
    """

    name: str
    load: Load | None
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    per_rank: tuple[str, ...] = ()
    empty: bool = False


@dataclass(frozen=True)
class RestorePlan:
    """Plan for all components. Nothing is changed before `apply`.

    Attributes:
        components: Their plans.
        may_differ: Names of the components that may differ: they take what fits.
    """

    components: tuple[ComponentPlan, ...]
    may_differ: frozenset[str]

    @property
    def differences(self) -> list[str]:
        """All differences between saved and restored objects that are not allowed."""
        return [line for plan in self.components if plan.name not in self.may_differ for line in plan.differences]

    def require_fit(self) -> None:
        """Check that there are only allowed differences.

        Raises:
            MismatchError: There are others.
        """
        if self.differences:
            raise MismatchError("the checkpoint does not fit the objects to restore", self.differences)

    def apply(self, path: str, changed: Collection[str] = ()) -> tuple[ComponentReport, ...]:
        """Restore the components, in their order.

        Args:
            path: The checkpoint.
            changed: Names of other components that were changed before.

        Raises:
            MismatchError: There are differences that are not allowed. Nothing was changed.
            RestoreError: A component raised.
        """
        self.require_fit()
        return apply_components([(plan, plan.load) for plan in self.components], path, changed)


def plan_restore(
    components: Mapping[str, Stateful],
    state: Mapping[str, Any],
    allow_mismatch: Collection[str] = (),
    *,
    names: ParameterNames | None = None,
    same: SameBits = same_bits,
    refused: Mapping[str, Sequence[str]] = MappingProxyType({}),
    path: str,
) -> RestorePlan:
    """Compare a state with the live objects to restore.

    Modules are compared by the names, shapes and dtypes of their tensors, regardless of wrappers; optimizers by the
    names
    and shapes of their parameters, and by their options. Other objects cannot be compared in advance.

    Args:
        components: The objects by name.
        state: Their states by name.
        allow_mismatch: Names of components that may differ: they take what fits.
        names: Names of the parameters; None: those of the modules among the components.
        same: Returns whether two tensors of the state have the same bits.
        refused: Why the states of some components cannot be loaded, one line each.
        path: Path of the checkpoint.

    Raises:
        RestoreError: A component raised during the comparison.
    """
    if names is None:
        names = parameter_names(components)
    optimizers: dict[int, OptimizerPlan] = {}
    plans = {}
    # Schedulers come last: their groups follow those of their optimizer.
    for name, component in sorted(components.items(), key=lambda item: isinstance(item[1], LRScheduler)):
        if refused.get(name):
            plans[name] = ComponentPlan(name, None, tuple(refused[name]))
        elif name not in state:
            plans[name] = ComponentPlan(name, None, (f"{name}: not in the checkpoint",))
        else:
            with named_when_compared(path, name):
                plan = _plan(name, component, state, names, optimizers, same)
            plans[name] = replace(plan, empty=is_empty(state[name]) and not plan.differences)
    return RestorePlan(tuple(plans[name] for name in components), frozenset(allow_mismatch))


def _plan(
    name: str,
    component: Stateful,
    state: Mapping[str, Any],
    names: ParameterNames,
    optimizers: dict[int, OptimizerPlan],
    same: SameBits,
) -> ComponentPlan:
    saved = state[name]
    groups = groups_of(component)
    if isinstance(component, nn.Module):
        return _plan_module(name, component, saved, same)
    if groups is not None:
        plan = plan_optimizer(component, groups, names, saved, partial(_saved_shape, state))
        optimizers[id(component)] = plan
        load = None if plan.state is None else LoadOptimizer(component, groups, plan.state)
        return ComponentPlan(name, load, _lines(name, plan.differences), _lines(name, plan.notes))
    if isinstance(component, LRScheduler):
        source = _source(optimizers.get(id(getattr(component, "optimizer", None))))
        live = component.state_dict()
        differences = list(compare_scheduler(live, saved, source))
        fit = None if differences else partial(_load_scheduler, component, saved, source)
        return ComponentPlan(name, fit, _lines(name, differences))
    if isinstance(component, StatefulGenerator):
        difference = component.difference(saved)
        if difference is not None:
            return ComponentPlan(name, None, (f"{name}: {difference}",))
    if isinstance(component, LiveValues):
        lines = _lines(name, component.differences(saved))
        return ComponentPlan(name, partial(component.load_state_dict, saved), lines)
    return ComponentPlan(name, partial(component.load_state_dict, saved))


def _plan_module(name: str, module: nn.Module, saved: Any, same: SameBits) -> ComponentPlan:
    live = plain_state(module)
    if isinstance(saved, Mapping):
        saved = without_wrapper_names(saved, live)
    found = list(compare_module(live, saved, same))
    lines = tuple(f"{name}: {what}" if tensor is None else f"{name}.{tensor}: {what}" for tensor, what in found)
    if not found:
        return ComponentPlan(name, LoadModule(module, saved))
    unfit = {tensor for tensor, _ in found}
    fitting = {tensor: value for tensor, value in saved.items() if tensor not in unfit} if None not in unfit else {}
    load = LoadModule(module, fitting, strict=False) if fitting else None
    return ComponentPlan(name, load, lines)


def _load_scheduler(scheduler: LRScheduler, saved: Mapping[str, Any], source: Sequence[int | None] | None) -> None:
    scheduler.load_state_dict(fit_scheduler(scheduler.state_dict(), saved, source))


def _source(plan: OptimizerPlan | None) -> Sequence[int | None] | None:
    return None if plan is None or plan.state is None else plan.source


def _saved_shape(state: Mapping[str, Any], name: str) -> torch.Size | None:
    component, _, tensor = name.partition(".")
    tree = state.get(component)
    value = tree.get(tensor) if isinstance(tree, Mapping) else None
    return value.shape if isinstance(value, torch.Tensor) else None


def _lines(name: str, lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}{line}" for line in lines)


def apply_components(
    loads: Sequence[tuple[ComponentPlan, Load | None]], path: str, changed: Collection[str] = ()
) -> tuple[ComponentReport, ...]:
    """Restore components in this order, and report it.

    Args:
        loads: Restores each component; None: it stays unchanged.
        path: Path of the checkpoint.
        changed: Names of components that were changed earlier, or whose memory already has the data.

    Raises:
        RestoreError: A component raised.
    """
    names = [plan.name for plan, _ in loads]
    names = [*(name for name in changed if name not in names), *names]
    so_far = set(changed)
    for plan, load in loads:
        if load is not None:
            so_far.add(plan.name)
            with named_when_restored(path, plan.name, [name for name in names if name in so_far]):
                load()
    return tuple(
        ComponentReport(
            plan.name, load is not None and not plan.empty, plan.differences, plan.notes, plan.per_rank, plan.empty
        )
        for plan, load in loads
    )
