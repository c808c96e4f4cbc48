"""State dicts of modules: comparison with a saved one, tensor by tensor, and loading."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ckptfmt._core.torch.distributed.wrappers import plain_state, unwrap, wrapped_state
from ckptfmt._core.torch.live_objects.generators import is_generator_state

__all__ = ["compare_module", "is_state_dict", "kind_of", "load_module", "same_bits", "shared_names"]


def is_state_dict(tree: object, tensor: type | tuple[type, ...] = torch.Tensor) -> bool:
    """Return whether a loaded tree can be the state dict of a module: names mapped to tensors.

    Args:
        tree: The tree.
        tensor: Type of its tensors.
    """
    return (
        isinstance(tree, Mapping)
        and all(isinstance(name, str) for name in tree)
        and any(isinstance(value, tensor) for value in tree.values())
        and not any(isinstance(value, Mapping | list | tuple) for name, value in tree.items() if not _is_extra(name))
        and not is_generator_state(tree)
    )


def compare_module(
    live: Mapping[str, Any], saved: object, same: Callable[[object, object], bool]
) -> Iterator[tuple[str | None, str]]:
    """Yield each difference as (name of the tensor or None for the whole, description).

    Args:
        live: The state dict of the module, with plain names.
        saved: The state in the checkpoint, with plain names.
        same: Returns whether two tensors of the checkpoint have the same bits.
    """
    if not isinstance(saved, Mapping):
        yield None, f"expected a state dict, found a {type(saved).__name__} in the checkpoint"
        return
    lacking = [name for name in live if name not in saved]
    tied = _tied_names(live, saved) if lacking else {}
    for name in lacking:
        if name not in tied:
            yield name, "in the model, not in the checkpoint"
    for name, value in saved.items():
        if name not in live:
            yield name, "in the checkpoint, not in the model"
        elif isinstance(live[name], torch.Tensor) and not is_lazy(live[name]) and not _alike(live[name], value):
            yield name, f"{kind_of(live[name])} in the model, {kind_of(value)} in the checkpoint"
    for first, other in shared_names(live):
        if first in saved and other in saved and not same(saved[first], saved[other]):
            yield other, f"tied to {first} in the model, a different tensor in the checkpoint"


def load_module(module: nn.Module, state: Mapping[str, Any], *, strict: bool = True) -> None:
    """Load a state dict with plain names; unless `strict`, missing tensors stay unchanged.

    One name is enough for tied weights, which some programs save only once.
    """
    inner = unwrap(module)
    if strict and _ties_parameters(inner):
        state = _with_tied(plain_state(module), state)
    state = wrapped_state(module, state)
    if strict:
        inner.load_state_dict(state)  # a class's own method need not accept `strict`
    else:
        inner.load_state_dict(state, strict=False)


def _ties_parameters(module: nn.Module) -> bool:
    named = sum(1 for _ in module.named_parameters(remove_duplicate=False))
    return named != sum(1 for _ in module.parameters())


def _tied_names(live: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, str]:
    """Return each name that was not saved, with a saved name of the same tensor of the model."""
    groups: dict[str, list[str]] = {}
    for first, other in shared_names(live):
        groups.setdefault(first, [first]).append(other)
    found = {}
    for names in groups.values():
        there = next((name for name in names if name in saved), None)
        if there is not None:
            found.update({name: there for name in names if name not in saved})
    return found


def _with_tied(live: Mapping[str, Any], state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state dict completed with names whose tensors it has under another name."""
    tied = _tied_names(live, state)
    if not tied:
        return state
    whole = OrderedDict((name, state[tied.get(name, name)]) for name in (*state, *tied))
    if hasattr(state, "_metadata"):
        whole._metadata = state._metadata  # type: ignore[attr-defined]  # where PyTorch keeps the versions of modules
    return whole


def kind_of(value: object) -> str:
    """Return dtype and shape of a tensor for people, or the type of anything else."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _alike(live: torch.Tensor, saved: object) -> bool:
    """Say whether a saved value is a tensor of the same dtype and shape: what `kind_of` shows, without the text."""
    return isinstance(saved, torch.Tensor) and live.dtype == saved.dtype and live.shape == saved.shape


def shared_names(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (first name, further name) for each tensor that occurs in a state dict more than once: tied weights."""
    first: dict[Hashable, str] = {}
    found = []
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and not is_lazy(value) and value.layout is torch.strided and value.numel():
            key = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
            if first.setdefault(key, name) != name and not value.is_meta:
                found.append((first[key], name))
    return found


def same_bits(a: object, b: object) -> bool:
    """Return whether two loaded tensors have the same bits; a NaN equals itself."""
    if a is b:
        return True
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or kind_of(a) != kind_of(b):
        return False
    return torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8)


def _is_extra(name: str) -> bool:
    """Return whether an entry comes from a module's `get_extra_state`: it may be any value."""
    return name.rpartition(".")[2] == "_extra_state"
