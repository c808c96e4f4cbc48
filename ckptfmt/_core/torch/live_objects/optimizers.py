"""Optimizers among the components of a run, and inside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn
from torch.optim import Optimizer

from ckptfmt._core.torch.live_objects.attributes import walk

__all__ = ["optimizers_in"]


def optimizers_in(components: Iterable[object]) -> Iterator[Optimizer]:
    """Yield each optimizer that is a component or in an attribute of one, inside wrappers such as Accelerate's."""
    seen: set[int] = set()
    for component in components:
        held = vars(component).values() if isinstance(component, nn.Module) else _held(component)
        for found in (component, *held):
            # Wrappers do not call the constructor of `Optimizer`, and call the step of the inner one.
            if isinstance(found, Optimizer) and "_optimizer_step_post_hooks" in vars(found) and id(found) not in seen:
                seen.add(id(found))
                yield found


def _held(component: object) -> Iterator[object]:
    if isinstance(component, Optimizer) and "_optimizer_step_post_hooks" in vars(component):
        return iter(())
    return (slot.value for slot in walk(component, code=False))
