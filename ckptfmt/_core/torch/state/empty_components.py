"""Reports of components with an empty `state_dict()` but a state that changes, which is not saved.

An empty state is right for objects without state, such as `nn.ReLU` or a disabled `GradScaler`. It is wrong for metrics
of torchmetrics, whose states are not persistent by default, and for objects whose attributes change during training. A
module may fill a cache once, so a module must also change between two saves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects.attributes import walk
from ckptfmt._core.torch.live_objects.contents import attributes
from ckptfmt._core.torch.live_objects.snapshots import take_snapshots
from ckptfmt._core.training.notices import notify

__all__ = ["HollowComponents", "is_empty"]

# Hooks and modes of every module, which are not state.
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"}


def is_empty(state: object) -> bool:
    """Return whether a state dict is empty."""
    return isinstance(state, Mapping) and not state


class HollowComponents:
    """Monitors components with an empty state.

    Args:
        components: All components by name.
    """

    def __init__(self, components: Mapping[str, object]) -> None:
        self._components = components
        self._marks = {name: _marks(component) for name, component in components.items() if _may_be_empty(component)}
        self._changed: set[str] = set()
        self._reported: set[str] = set()

    def note(self, states: Mapping[str, object]) -> None:
        """Report, once each, components with an empty state that change. Call it at each save."""
        for name in self._marks.keys() & {name for name, state in states.items() if is_empty(state)} - self._reported:
            component = self._components[name]
            if _is_metric(component):
                self._report(name)
                continue
            marks = _marks(component)
            if marks == self._marks[name]:
                continue
            self._marks[name] = marks
            if name in self._changed or not isinstance(component, nn.Module):
                self._report(name)
            self._changed.add(name)

    def note_restored(self, empty: Collection[str]) -> None:
        """Report metrics among components with an empty state in a checkpoint."""
        for name in empty:
            if name not in self._reported and _is_metric(self._components[name]):
                self._report(name)

    def _report(self, name: str) -> None:
        self._reported.add(name)
        if ranks.world().rank == 0:
            component = self._components[name]
            cure = "call its persistent(True)" if _is_metric(component) else "let its state_dict() return its state"
            notify(f"component {name} has an empty state and is neither saved nor restored; {cure}")


def _may_be_empty(component: object) -> bool:
    if isinstance(component, nn.Module):
        return next(component.parameters(), None) is None
    return not isinstance(component, Optimizer | LRScheduler)


def _is_metric(component: object) -> bool:
    """Return whether an object is a torchmetrics metric with states, or a collection of such metrics."""
    parts = component.modules() if isinstance(component, nn.Module) else ()
    return any(attributes(part).get("_defaults") and "_persistent" in attributes(part) for part in parts)


def _marks(component: object) -> dict[str, str]:
    looks = take_snapshots(walk(component, code=False))
    return {
        path: seen.mark
        for path, seen in looks.items()
        if _OF_EVERY_MODULE.isdisjoint(path.replace("[", ".").split("."))
    }
