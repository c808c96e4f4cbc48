"""Names of a module's tensors that are independent of wrappers: DDP, DataParallel and `torch.compile`.

A wrapper inserts its own attribute into every name: `module.0.weight`, `_orig_mod.0.weight`, or, around a part of a
model, `encoder._orig_mod.0.weight`. The plain name omits it, so that wrapped and unwrapped models have the same
checkpoints.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

__all__ = ["plain_namer", "plain_state", "unwrap", "without_wrapper_names", "wrapped_state"]

_COMPILED = "_orig_mod"
_PARALLEL = "module"
_COMPILED_PART = re.compile(rf"(^|\.){_COMPILED}\.")

Namer = Callable[[str], str]


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside all wrappers."""
    while (name := _wrapped(module)) is not None:
        module = module.get_submodule(name)
    return module


def plain_namer(module: nn.Module) -> Namer:
    """Return a function from the names in `module` to plain names. `module` itself must not be a wrapper."""
    insertions = sorted(_insertions(module), key=len, reverse=True)  # inner wrappers first

    def plain(name: str) -> str:
        # The trailing dot lets the path of a wrapped module itself match.
        name += "."
        for path in insertions:
            if name.startswith(f"{path}."):
                name = name.removeprefix(f"{path}.")
                name = f"{path.rpartition('.')[0]}.{name}"
        return name[:-1]

    return plain if insertions else _same


def plain_state(module: nn.Module) -> Any:
    """Return the module's state dict with plain names."""
    inner = unwrap(module)
    state = inner.state_dict()
    plain = plain_namer(inner)
    return state if plain is _same else _renamed(state, plain)


def wrapped_state(module: nn.Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a state dict with plain names in the names of `unwrap(module)`."""
    inner = unwrap(module)
    plain = plain_namer(inner)
    if plain is _same:
        return state
    names = {plain(name): name for name in inner.state_dict()}
    renamed = _renamed(state, lambda name: names.get(name, name))
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        paths = (path for path, _ in inner.named_modules(remove_duplicate=False))
        noted = {path: versions[plain(path)] for path in paths if plain(path) in versions}
        renamed._metadata = OrderedDict(noted)  # type: ignore[attr-defined]  # where torch.nn.Module looks
    return renamed


def without_wrapper_names(saved: Mapping[str, Any], live: Iterable[str]) -> Mapping[str, Any]:
    """Return a wrapped model's state dict, saved by other means, with plain names.

    Only unambiguous parts are removed: `_orig_mod` in any name, and a `module.` prefix of all names, unless all of the
    model's own names (`live`, plain names) have it too.
    """
    if not all(isinstance(name, str) for name in saved):
        return saved
    live = list(live)
    if any(_COMPILED_PART.search(name) for name in saved) and not any(map(_COMPILED_PART.search, live)):
        saved = _renamed(saved, lambda name: _COMPILED_PART.sub(r"\1", name))
    prefix = f"{_PARALLEL}."
    while saved and all(name.startswith(prefix) for name in saved) and not all(it.startswith(prefix) for it in live):
        saved = _renamed(saved, lambda name: name.removeprefix(prefix))
    return saved


def _wrapped(module: nn.Module) -> str | None:
    """Return the attribute in which a wrapper holds its module; None if `module` is not a wrapper."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _PARALLEL
    # Results of `torch.compile` are recognized by their attribute: importing their class would import the compiler.
    return _COMPILED if isinstance(module._modules.get(_COMPILED), nn.Module) else None


def _insertions(module: nn.Module) -> list[str]:
    """Return the path of each wrapped module inside `module`."""
    found = []
    for path, part in module.named_modules(remove_duplicate=False):
        name = _wrapped(part)
        if name is not None:
            found.append(f"{path}.{name}")
    return found


def _renamed(state: Mapping[str, Any], rename: Namer) -> OrderedDict[str, Any]:
    renamed = OrderedDict((rename(name), value) for name, value in state.items())
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        # With a trailing dot, a path is renamed like the prefix of the names below it. A wrapper comes before its
        # module, so the versions of the module win.
        noted = OrderedDict((rename(f"{path}.").rstrip("."), facts) for path, facts in versions.items())
        renamed._metadata = noted  # type: ignore[attr-defined]  # where torch.nn.Module looks
    return renamed


def _same(name: str) -> str:
    return name
