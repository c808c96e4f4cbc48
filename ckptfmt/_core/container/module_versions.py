"""Versions of modules: what `state_dict()` notes beside the tensors and `load_state_dict()` asks for.

A module class may change what it stores and raise its `_version`; when it is loaded, it converts an older state.
The versions travel in the attribute `_metadata` of a state dict, which is no item of the mapping. In a file they are
text metadata of the component. Version 1, which nearly every module has, is left out there: it is what every module
gets that a tensor's name speaks of.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from ckptfmt._core.format.index import ROOT

__all__ = ["attach", "text_metadata", "versions_of"]

_KEY = "torch.module_versions"


def text_metadata(state: object) -> dict[str, dict[str, str]]:
    """Return the text metadata for each component of a state that is a state dict of a module.

    Only components are looked at, and the state itself if it is a bare state dict.
    """
    found = {}
    components = {ROOT: state} | (dict(state) if isinstance(state, Mapping) else {})
    for name, tree in components.items():
        noted = getattr(tree, "_metadata", None)
        if isinstance(tree, Mapping) and isinstance(noted, Mapping):
            found[name] = {"format": "pt", _KEY: json.dumps(_unusual(noted))}
    return found


def attach(tree: Any, text: Mapping[str, str]) -> Any:
    """Return a tree as it was loaded or, if versions were noted for it, as a state dict that carries them."""
    versions = versions_of(tree, text) if isinstance(tree, Mapping) else None
    if versions is None:
        return tree
    state_dict = OrderedDict(tree)
    noted = {path: {"version": version} for path, version in versions.items()}
    state_dict._metadata = OrderedDict(noted)  # type: ignore[attr-defined]  # where torch.nn.Module looks
    return state_dict


def versions_of(names: Iterable[str], text: Mapping[str, str]) -> dict[str, int] | None:
    """Return the version of each module that has one of these tensors in it; None if none were noted.

    Args:
        names: Names of the tensors.
        text: Text metadata of their component.
    """
    versions = _parse(text.get(_KEY))
    return None if versions is None else {**dict.fromkeys(_module_paths(names), 1), **versions}


def _unusual(noted: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    versions = {path: facts.get("version", 1) for path, facts in noted.items()}
    return {path: version for path, version in versions.items() if type(version) is int and version != 1}


def _parse(text: str | None) -> dict[str, int] | None:
    """Return the versions; None if none are recorded, or in an unknown form: they are only a hint."""
    try:
        versions = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(versions, dict) or not all(type(version) is int for version in versions.values()):
        return None
    return versions


def _module_paths(names: Iterable[str]) -> list[str]:
    """Return the path of every module that has one of these tensors in it."""
    paths = {""}
    for name in names:
        parts = str(name).split(".")[:-1]
        paths.update(".".join(parts[: count + 1]) for count in range(len(parts)))
    return sorted(paths)
