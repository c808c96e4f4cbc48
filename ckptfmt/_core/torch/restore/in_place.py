"""Restore without copies: data goes from the file directly into the memory of live modules and optimizers.

An object with custom loading, such as hooks, is restored through `load_state_dict` as usual, from that same memory
where possible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import increment_version
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from ckptfmt._core.container.chunk_reader import ReadTarget
from ckptfmt._core.torch.distributed.wrappers import plain_namer, unwrap
from ckptfmt._core.torch.restore.placeholders import Skeletons
from ckptfmt._core.torch.restore.plan import ComponentPlan, LoadModule, LoadOptimizer, RestorePlan, apply_components
from ckptfmt._core.torch.restore.raising import named_when_compared
from ckptfmt._core.torch.restore.read_targets import fits, target_of
from ckptfmt._core.torch.tensors.adapter import new_tensor
from ckptfmt._core.training.report import ComponentReport
from ckptfmt.errors import MismatchError

__all__ = ["Placement"]

# What these do beyond `Module._load_from_state_dict` concerns only names, which have been compared.
_ORDINARY_LOADERS = frozenset(
    {
        nn.Module._load_from_state_dict,
        _NormBase._load_from_state_dict,
        _InstanceNorm._load_from_state_dict,
    }
)
_VALUES = (torch.Tensor, bool, int, float, str, type(None))


class Placement:
    """Destinations of everything that a plan restores.

    Args:
        plan: The plan, made with placeholders. It must fit.
        skeletons: The source of the placeholders.
        path: Path of the checkpoint.

    Attributes:
        targets: For each component, the destinations of its tensors' data.

    Raises:
        MismatchError: A module has no memory.
        RestoreError: A component raised during the search for its memory.
    """

    def __init__(self, plan: RestorePlan, skeletons: Skeletons, path: str) -> None:
        self._path = path
        self.targets: dict[str, dict[str, ReadTarget]] = {}
        self._skeletons = skeletons
        self._first: dict[int, torch.Tensor] = {}
        self._repeats: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._places: dict[Hashable, torch.Tensor] = {}
        self._written: list[torch.Tensor] = []
        self._finishes = [(component, self._prepare(component)) for component in plan.components]

    @property
    def nbytes(self) -> int:
        """Number of bytes read directly to their destinations."""
        return sum(tensor.nbytes for tensor in self._written)

    def finish(self) -> tuple[ComponentReport, ...]:
        """Finish the restore once all data is read: notify the objects, and load the rest.

        Raises:
            RestoreError: A component raised.
        """
        with torch.no_grad():
            for tensor, source in self._repeats:
                tensor.copy_(source)
        increment_version(self._written)  # autograd must notice the change
        in_place = [component.name for component, _ in self._finishes if self.targets.get(component.name)]
        return apply_components(self._finishes, self._path, in_place)

    def _prepare(self, component: ComponentPlan) -> Callable[[], object] | None:
        with named_when_compared(self._path, component.name):
            match component.load:
                case LoadModule() as load:
                    return self._prepare_module(component.name, load)
                case LoadOptimizer() as load:
                    return self._prepare_optimizer(load)
        return component.load

    def _prepare_module(self, name: str, load: LoadModule) -> Callable[[], object]:
        inner = unwrap(load.module)
        memory, special = _memory_of(inner), _special_parts(inner)
        homeless = [f"{name}.{key}: on the meta device" for key in load.state if memory.get(key, _EMPTY).is_meta]
        if homeless:
            raise MismatchError("the model has no memory yet; allocate it with to_empty(device=...)", homeless)
        values = {}
        in_place = special == []
        for key, saved in load.state.items():
            live = memory.get(key)
            if special and any(key.startswith(path) for path in special):
                live = None
            taker = values[key] = self._take(saved, live)
            in_place &= live is not None and taker is live
        if in_place:
            return _nothing
        if hasattr(load.state, "_metadata"):
            values = _WithVersions(values)
            values._metadata = load.state._metadata
        return LoadModule(load.module, values, load.strict)

    def _prepare_optimizer(self, load: LoadOptimizer) -> Callable[[], object]:
        numbered = _parameters(load)
        plain = _is_plain_optimizer(load, numbered)
        states = {}
        for number, saved in load.state["state"].items():
            parameter = numbered.get(number)
            if parameter is None or not isinstance(saved, Mapping):
                states[number] = saved
                continue
            live = load.optimizer.state.get(parameter, {}) if plain else {}
            states[number] = {key: self._take(value, live.get(key), parameter) for key, value in saved.items()}
        filled = LoadOptimizer(load.optimizer, load.groups, {**load.state, "state": states})
        return _Assign(filled, numbered) if plain else filled

    def _take(self, saved: Any, live: Any, parameter: torch.Tensor | None = None) -> Any:
        """Return the tensor that takes the values of a saved one: the live one, if possible.

        Args:
            saved: The saved value; if it is not a placeholder, it is already read.
            live: The live tensor; None to create one.
            parameter: Tensor whose device and layout a new one has; None: on the CPU.
        """
        origin = self._skeletons.origin(saved)
        if origin is None:
            return saved
        taker = live if live is not None and fits(live, saved) else None
        if taker is None:
            taker = new_tensor(saved.shape, saved.dtype, "cpu" if parameter is None else parameter.device)
        first = self._first.setdefault(id(saved), taker)  # the skeletons keep it, and have one for each origin
        if first is not taker:
            self._repeats.append((taker, first))
        elif not taker.numel():
            return taker
        elif self._is_first_at_its_place(taker):
            # Tensors tied here but not in the file have the same bits there: either one will do.
            self.targets.setdefault(origin.component, {})[origin.tensor] = target_of(taker)
        self._written.append(taker)
        return taker

    def _is_first_at_its_place(self, taker: torch.Tensor) -> bool:
        """Return whether this is the first tensor with this memory, shape and strides."""
        first = self._places.setdefault(taker.data_ptr(), taker)
        if first is taker:
            return True
        place = _place_of(taker)
        return place != _place_of(first) and self._places.setdefault(place, taker) is taker


class _WithVersions(dict[str, Any]):
    """A state dict with the versions of its modules."""

    _metadata: Any


class _Assign:
    """Loads an optimizer state whose tensors are already in place.

    It does the work of `Optimizer.load_state_dict` without the casts that `load_optimizer` would undo, and without a
    search of all parameters for each one.
    """

    def __init__(self, load: LoadOptimizer, numbered: Mapping[Any, torch.Tensor]) -> None:
        self._load = load
        self._numbered = numbered

    def __call__(self) -> None:
        optimizer: Optimizer = self._load.optimizer
        states = self._load.state["state"]
        others = {key: value for key, value in states.items() if key not in self._numbered}
        optimizer.load_state_dict({**self._load.state, "state": others})
        flags = {
            id(parameter): bool(group.get("capturable") or group.get("fused"))
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        state: defaultdict[Any, Any] = defaultdict(dict, optimizer.state)
        for number, values in states.items():
            parameter = self._numbered.get(number)
            if parameter is not None:
                device, on_device = parameter.device, flags[id(parameter)]
                state[parameter] = {key: _placed(key, value, device, on_device) for key, value in values.items()}
        optimizer.__setstate__({"state": state, "param_groups": optimizer.param_groups})
        # It has stepped: a scheduler that steps next must not warn about the wrong order.
        optimizer._opt_called = True  # type: ignore[attr-defined]  # where LRScheduler looks


def _placed(key: str, value: Any, device: torch.device, step_on_device: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if key == "step":
        return value.to(dtype=torch.float32, device=device) if step_on_device else value
    return value if value.device == device else value.to(device=device)


def _place_of(tensor: torch.Tensor) -> Hashable:
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()


_EMPTY = torch.empty(0)


def _nothing() -> None:
    """Do nothing: everything is in place."""


def _memory_of(inner: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a module by plain name, if its state dict contains these very tensors."""
    plain = plain_namer(inner)
    shown = inner.state_dict()
    found = {}
    named = (*inner.named_parameters(remove_duplicate=False), *inner.named_buffers(remove_duplicate=False))
    for name, tensor in named:
        value = shown.get(name)
        if isinstance(value, torch.Tensor) and not is_lazy(tensor) and _is_same_memory(tensor, value):
            found[plain(name)] = tensor.detach() if type(tensor) is nn.Parameter else tensor
    return found


def _is_same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        type(a) in (torch.Tensor, nn.Parameter)
        and a.layout is torch.strided
        and b.layout is torch.strided
        and a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.dtype == b.dtype
    )


def _special_parts(inner: nn.Module) -> list[str] | None:
    """Return the prefixes of submodules with custom loading; None if hooks must be called.

    With an empty list, filling the memory is enough.
    """
    if getattr(inner.load_state_dict, "__func__", None) is not nn.Module.load_state_dict:
        return None
    plain = plain_namer(inner)
    special = []
    hooks = False
    for path, part in inner.named_modules(remove_duplicate=False):
        kind = type(part)
        if kind._load_from_state_dict not in _ORDINARY_LOADERS:
            special.append(f"{plain(path)}." if path else "")
        hooks |= bool(part._load_state_dict_pre_hooks or part._load_state_dict_post_hooks)
        hooks |= kind.set_extra_state is not nn.Module.set_extra_state
    if hooks and not special:
        return None
    return special


def _parameters(load: LoadOptimizer) -> dict[Any, torch.Tensor]:
    """Return the parameters by their numbers in the state."""
    return {
        number: parameter
        for group, saved in zip(load.groups, load.state["param_groups"], strict=True)
        for number, parameter in zip(saved["params"], group["params"], strict=True)
    }


def _is_plain_optimizer(load: LoadOptimizer, numbered: Mapping[Any, torch.Tensor]) -> bool:
    """Return whether an optimizer loads its state as `Optimizer` does, and the state has only tensors and scalars."""
    optimizer = load.optimizer
    if not isinstance(optimizer, Optimizer) or optimizer.param_groups is not load.groups:
        return False
    if getattr(optimizer.load_state_dict, "__func__", None) is not Optimizer.load_state_dict:
        return False
    if optimizer._optimizer_load_state_dict_pre_hooks or optimizer._optimizer_load_state_dict_post_hooks:
        return False
    states: Sequence[Any] = [state for number, state in load.state["state"].items() if number in numbered]
    return all(
        isinstance(state, Mapping) and all(isinstance(value, _VALUES) for value in state.values()) for state in states
    )
