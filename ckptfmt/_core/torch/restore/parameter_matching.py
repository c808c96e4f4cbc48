"""Matching of the parameters of an optimizer with those of a saved state, by name or, without names, by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ckptfmt._core.torch.distributed.wrappers import without_wrapper_names
from ckptfmt._core.torch.state.parameter_names import NAMES_KEY, ParameterNames, group_names

__all__ = ["Live", "Saved", "pair", "read_saved"]


@dataclass(frozen=True)
class LivePlace:
    """A parameter in a group of the optimizer."""

    parameter: torch.Tensor
    group: int
    number: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class SavedPlace:
    """A parameter in a saved group: its number there, and its name if it has one."""

    group: int
    number: int
    name: str | None


class Live:
    """Parameters of an optimizer, in the order of its groups.

    Attributes:
        groups: Its parameter groups.
        places: The parameters by their overall index.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], names: ParameterNames) -> None:
        self.groups = groups
        numbers: dict[int, int] = {}
        self.places: dict[int, LivePlace] = {}
        for group, (options, own) in enumerate(zip(groups, group_names(list(groups), names), strict=True)):
            for parameter, name in zip(options["params"], own, strict=True):
                place = len(self.places)
                number = numbers.setdefault(id(parameter), place)  # as `Optimizer.state_dict` numbers them
                full = names.get(id(parameter), () if name is None else (name,))
                self.places[place] = LivePlace(parameter, group, number, full)

    def numbers(self, group: int) -> list[int]:
        """Return the numbers of the parameters of a group."""
        return [place.number for place in self.places.values() if place.group == group]

    def label(self, place: int) -> str:
        """Return what to call a parameter."""
        return next(iter(self.places[place].names), str(place))


@dataclass(frozen=True)
class Saved:
    """A saved state dict of an optimizer.

    Attributes:
        groups: Its groups.
        state: Its states by number.
        extras: Its other entries.
        places: Its parameters by their overall index.
    """

    groups: Sequence[Mapping[str, Any]]
    state: Mapping[Any, Any]
    extras: Mapping[str, Any]
    places: Mapping[int, SavedPlace]

    @cached_property
    def named(self) -> bool:
        """Whether it names its parameters."""
        return any(place.name is not None for place in self.places.values())

    @cached_property
    def strays(self) -> list[int]:
        """The numbers of states without a parameter."""
        numbers = {place.number for place in self.places.values()}
        return [key for key in self.state if isinstance(key, int) and key not in numbers]

    def state_at(self, place: int) -> Mapping[str, Any]:
        """Return the state of a parameter; empty if it has none."""
        state: Mapping[str, Any] = self.state.get(self.places[place].number, {})
        return state

    def unused(self, pairs: Mapping[int, int]) -> Iterator[int]:
        """Yield the unpaired places."""
        numbers = {self.places[place].number for place in pairs.values()}
        return (place for place, facts in self.places.items() if facts.number not in numbers)

    def label(self, place: int) -> str:
        """Return what to call a parameter."""
        return self.places[place].name or str(self.places[place].number)


def read_saved(saved: object) -> Saved | None:
    """Return a loaded tree as the state dict of an optimizer; None if it is not one."""
    if not isinstance(saved, Mapping):
        return None
    groups, state = saved.get("param_groups"), saved.get("state")
    if not isinstance(groups, list | tuple) or not isinstance(state, Mapping):
        return None
    places: dict[int, SavedPlace] = {}
    for number, group in enumerate(groups):
        if not isinstance(group, Mapping) or not _is_numbers(group.get("params")):
            return None
        for parameter, name in zip(group["params"], _names(group), strict=True):
            places[len(places)] = SavedPlace(number, parameter, name)
    if not all(isinstance(value, Mapping) for key, value in state.items() if isinstance(key, int)):
        return None
    owners: dict[str, int] = {}
    if any(owners.setdefault(it.name, it.number) != it.number for it in places.values() if it.name is not None):
        places = {at: SavedPlace(it.group, it.number, None) for at, it in places.items()}  # ambiguous names
    extras = {key: value for key, value in saved.items() if key not in ("param_groups", "state")}
    return Saved(groups, state, extras, places)


def pair(new: Live, old: Saved) -> dict[int, int] | None:
    """Return live place -> saved place; None if there are no names and the counts differ."""
    if not old.named:
        same = _sizes(new.groups) == _sizes(old.groups)
        return {place: place for place in new.places} if same else None
    by_name = {facts.name: place for place, facts in old.places.items() if facts.name is not None}
    pairs = _by_names(new, by_name)
    if not pairs:
        # Names from other programs start at the model, not at the component.
        relative = without_wrapper_names(by_name, [name.partition(".")[2] for name in _all_names(new)])
        pairs = _by_names(new, relative, relative=True)
    unnamed = [place for place, facts in new.places.items() if not facts.names]
    nameless = [place for place, facts in old.places.items() if facts.name is None]
    if len(unnamed) == len(nameless):  # otherwise they cannot be matched
        pairs |= dict(zip(unnamed, nameless, strict=True))
    return dict(sorted(pairs.items()))


def _by_names(new: Live, by_name: Mapping[str, int], *, relative: bool = False) -> dict[int, int]:
    pairs: dict[int, int] = {}
    owners: dict[int, int] = {}
    ambiguous = {name for name, count in _counts(new).items() if count > 1} if relative else set()
    for place, facts in new.places.items():
        for full in facts.names:
            name = full.partition(".")[2] if relative else full
            there = None if name in ambiguous else by_name.get(name)
            if there is not None and owners.setdefault(there, facts.number) == facts.number:
                pairs[place] = there
                break
    return pairs


def _counts(new: Live) -> dict[str, int]:
    """Return the number of parameters with each name, without the component."""
    owners: dict[str, set[int]] = {}
    for facts in new.places.values():
        for name in facts.names:
            owners.setdefault(name.partition(".")[2], set()).add(facts.number)
    return {name: len(numbers) for name, numbers in owners.items()}


def _all_names(new: Live) -> list[str]:
    return [name for facts in new.places.values() for name in facts.names]


def _sizes(groups: Sequence[Mapping[str, Any]]) -> list[int]:
    return [len(group["params"]) for group in groups]


def _names(group: Mapping[str, Any]) -> list[str | None]:
    names, count = group.get(NAMES_KEY), len(group["params"])
    if not isinstance(names, list | tuple) or len(names) != count:
        return [None] * count
    return [name if isinstance(name, str) else None for name in names]


def _is_numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and all(type(item) is int for item in value)
