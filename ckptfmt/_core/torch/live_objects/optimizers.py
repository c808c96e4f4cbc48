"""Optimizers among the components of a run, and inside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeGuard

from torch import nn
from torch.optim import Optimizer

from ckptfmt._core.torch.live_objects.attributes import walk
from ckptfmt._core.torch.live_objects.contents import attributes, is_a

__all__ = ["is_optimizer", "optimizers_in"]


def optimizers_in(components: Iterable[object]) -> Iterator[Optimizer]:
    """Yield each optimizer that is a component or in an attribute of one, inside wrappers such as Accelerate's."""
    seen: set[int] = set()
    for component in components:
        held = vars(component).values() if isinstance(component, nn.Module) else _held(component)
        for found in (component, *held):
            if is_optimizer(found) and id(found) not in seen:
                seen.add(id(found))
                yield found


def is_optimizer(value: object) -> TypeGuard[Optimizer]:
    """Return whether a value is an optimizer and no wrapper of one. No code of its class runs."""
    # Wrappers do not call the constructor of `Optimizer`, and call the step of the inner one.
    return is_a(value, Optimizer) and "_optimizer_step_post_hooks" in attributes(value)


def _held(component: object) -> Iterator[object]:
    if is_optimizer(component):
        return iter(())
    return (slot.value for slot in walk(component, code=False))
