"""Plain values and tensors as components: a dict, a dataclass instance, or the variables that a loop carries.

They are restored in place as far as possible: a dict, a list or a tensor of the same shape and dtype stays the object
that it is, so that whoever refers to it sees the restored values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ckptfmt._core.container.state.flattening import flatten_state
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt.errors import StateError, UsageError

__all__ = ["LiveValues", "Variables", "as_live_values", "require_values"]

_DEVICES = "_devices"
"""Key of the kinds of devices of tensors, by path; absent if all are on the CPU."""


_SIMPLE = frozenset({bool, int, float, str, bytes, type(None), torch.Tensor})
"""Types of values that need no check."""


class LiveValues:
    """A component of values by name.

    Args:
        get: Returns the values.
        put: Replaces one of them.
        remove: Removes one that is not saved; None: the names are always the same.
    """

    def __init__(
        self,
        get: Callable[[], Mapping[str, Any]],
        put: Callable[[str, Any], object],
        remove: Callable[[str], object] | None = None,
    ) -> None:
        self._get = get
        self._put = put
        self._remove = remove

    def state_dict(self) -> dict[str, Any]:
        """Return the values, and the kinds of devices of their tensors unless all are on the CPU."""
        values = {name: _plain(value) for name, value in self._get().items()}
        devices = {path: tensor.device.type for path, tensor in _tensors(values) if tensor.device.type != "cpu"}
        return {**values, _DEVICES: devices} if devices else values

    def load_state_dict(self, state_dict: Any, /) -> None:
        """Set the values, in place where that is possible. Names that are on one side only are left alone."""
        live = self._get()
        devices = state_dict.get(_DEVICES, {})
        if self._remove is not None:
            for name in live.keys() - state_dict.keys():
                self._remove(name)
        for name, saved in state_dict.items():
            if name != _DEVICES and (self._remove is not None or name in live):
                restored = _restored(live.get(name), saved, name, devices)
                if name not in live or restored is not live[name]:
                    self._put(name, restored)

    def require(self, where: str) -> None:
        """Check that the format supports the values; see `require_values`."""
        require_values(self._get(), where)

    def differences(self, saved: object) -> list[str]:
        """Return why a state does not fit, one line each, to be put after the name of the component."""
        if not isinstance(saved, Mapping) or not all(isinstance(name, str) for name in saved):
            return [": no values by name in the checkpoint"]
        if self._remove is not None:
            return []
        live, there = self._get().keys(), saved.keys() - {_DEVICES}
        return [
            *(f".{name}: not in the checkpoint" for name in live if name not in there),
            *(f".{name}: in the checkpoint, not here" for name in there if name not in live),
        ]


class Variables:
    """The variables that a loop carries, as attributes, from `Checkpointer.variables`."""

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            if name.startswith("_"):
                raise UsageError(f"variables(): {name!r} begins with an underscore; choose another name")
            require_values({name: value}, f"variables(): {name!r}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in vars(self):
            raise AttributeError(f"no variable {name!r}, so it would not be saved; give it to variables()")
        if type(value) not in _SIMPLE:
            require_values({name: value}, f"variable {name!r}")
        vars(self)[name] = value

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"variable {name!r} cannot be removed; set it to None")

    def __repr__(self) -> str:
        return f"Variables({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def as_live_values(component: object) -> LiveValues | None:
    """Return a dict, an instance of a dataclass or `Variables` as a component; None for anything else.

    Raises:
        UsageError: The format does not support a value in it, or it cannot be restored in place.
    """
    if isinstance(component, Variables):
        return LiveValues(lambda: vars(component), component.__setattr__)
    if isinstance(component, dict):
        return LiveValues(lambda: component, component.__setitem__, component.__delitem__)
    if dataclasses.is_dataclass(component) and not isinstance(component, type):
        if component.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # every dataclass has it
            raise UsageError("a frozen dataclass cannot be restored in place; remove frozen=True, or pass a dict")
        return LiveValues(lambda: _fields(component), component.__setattr__)
    return None


def require_values(values: Mapping[Any, Any], where: str) -> None:
    """Check that the format supports values.

    Args:
        values: The values by name.
        where: Start of the error.

    Raises:
        UsageError: It does not.
    """
    if _DEVICES in values:
        raise UsageError(f"{where}: the name {_DEVICES!r} is reserved; choose another one")
    for name in values:
        if not isinstance(name, str):
            raise UsageError(f"{where}: key {name!r} is not a str; use names as keys")
    try:
        for _ in flatten_state({"values": {name: _plain(value) for name, value in values.items()}}, TORCH_ADAPTERS):
            pass
    except StateError as error:
        raise UsageError(f"{where} cannot be saved: {error}") from None


def _fields(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def _plain(value: Any) -> Any:
    """Return a value with dataclass instances as dicts, and tensors without their graphs."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(part) for name, part in _fields(value).items()}
    if type(value) is dict:
        return {key: _plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def _tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _tensors(part, f"{path}[{index}]")


def _restored(live: Any, saved: Any, path: str, devices: Mapping[str, str]) -> Any:
    """Return a saved value: the live object with its content, if it can take it, or else a new one."""
    if isinstance(saved, torch.Tensor):
        return _restored_tensor(live, saved, devices.get(path, "cpu"))
    if isinstance(saved, dict):
        if dataclasses.is_dataclass(live) and not isinstance(live, type):
            for name, part in saved.items():
                setattr(live, name, _restored(getattr(live, name, None), part, f"{path}.{name}", devices))
            return live
        kept = live if isinstance(live, dict) else {}
        parts = {key: _restored(kept.get(key), part, f"{path}.{key}", devices) for key, part in saved.items()}
        kept.clear()
        kept.update(parts)
        return kept
    if isinstance(saved, list | tuple):
        before = live if isinstance(live, list | tuple) and len(live) == len(saved) else [None] * len(saved)
        items = [
            _restored(one, part, f"{path}[{index}]", devices)
            for index, (one, part) in enumerate(zip(before, saved, strict=True))
        ]
        if isinstance(live, list) and isinstance(saved, list):
            live[:] = items
            return live
        return type(saved)(items)
    return saved


def _restored_tensor(live: Any, saved: torch.Tensor, device: str) -> torch.Tensor:
    if isinstance(live, torch.Tensor) and (live.shape, live.dtype) == (saved.shape, saved.dtype):
        with torch.no_grad():
            live.copy_(saved)
        return live
    if isinstance(live, torch.Tensor):
        return saved.to(live.device).clone()
    try:
        return saved.to(device).clone()
    except (RuntimeError, AssertionError):  # no such device here: the program runs on another one
        return saved.clone()
