"""Gradients that wait for their optimizer step, as in gradient accumulation.

A checkpoint has no gradients. One that is saved after some micro-batches of an optimizer step would lose them, and the
resumed run would take a smaller step, with no sign of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ckptfmt._core.torch.live_objects.optimizers import optimizers_in

__all__ = ["Accumulation", "Gradients"]

_SEEN = "_ckptfmt_seen"
"""Attribute of a gradient: its version after the last optimizer step. A new gradient lacks it, whatever its id."""


class Accumulation:
    """Finds out from the optimizers among the components whether gradients wait for their step.

    They do if no optimizer has stepped since the last call of `waits`, and gradients have changed since the last step.
    A `GradScaler` that skips a step leaves its gradients waiting, too. Loops whose optimizers this class cannot see say
    themselves when they accumulate.

    Args:
        components: The components.
    """

    def __init__(self, components: Mapping[str, object]) -> None:
        self.holds_gradients = any(isinstance(component, Gradients) for component in components.values())
        self._optimizers = list(optimizers_in(components.values()))
        self._handles: list[RemovableHandle] = []
        self._stepped = False

    def watch(self) -> None:
        """Begin to count the steps of the optimizers."""
        if not self._handles:
            self._handles = [it.register_step_post_hook(self._note) for it in self._optimizers]

    def close(self) -> None:
        """Count no more steps."""
        while self._handles:
            self._handles.pop().remove()

    def waits(self) -> bool:
        """Return whether gradients wait for an optimizer step. Call it once after each batch or step."""
        if not self._stepped:
            return self._have_changed()
        self._stepped = False
        for gradient in self._gradients():
            gradient._ckptfmt_seen = gradient._version  # type: ignore[attr-defined]  # `_SEEN`; `setattr` takes longer
        return False

    def waits_at_end(self) -> bool:
        """Return whether gradients other than zeros wait for an optimizer step. It may wait for a device."""
        if self.holds_gradients or self._stepped or not self._have_changed():
            return False
        return any(bool(torch.any(_dense(gradient) != 0)) for gradient in self._gradients())

    def _have_changed(self) -> bool:
        for gradient in self._gradients():  # noqa: SIM110 - `any` takes longer, and there may be many
            if getattr(gradient, _SEEN, None) != gradient._version:
                return True
        return False

    def _note(self, *_: object) -> None:
        self._stepped = True

    def _gradients(self) -> list[torch.Tensor]:
        """Return the gradients: a list, because it is made at each step."""
        return [
            gradient
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
            if (gradient := parameter.grad) is not None
        ]


class Gradients:
    """Component that saves the gradients of a module, for epochs that end between two optimizer steps.

    ```python
    components = {"net": net, "optimizer": optimizer, "gradients": ckptfmt.torch.Gradients(net)}
    ```

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def state_dict(self) -> dict[str, Any]:
        """Return the gradients by the name of their parameter."""
        return {name: it.grad for name, it in self._module.named_parameters() if it.grad is not None}

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], /) -> None:
        """Set the gradients; those of other parameters become None.

        Raises:
            ValueError: A name is not that of a parameter.
        """
        parameters = dict(self._module.named_parameters())
        unknown = state_dict.keys() - parameters.keys()
        if unknown:
            raise ValueError(f"the module has no parameters {', '.join(sorted(unknown))}")
        for name, parameter in parameters.items():
            gradient = state_dict.get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter.device).clone()


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
