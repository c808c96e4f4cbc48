"""The state of a component without its large tensors: stand-ins have their dtypes and shapes, and no memory.

With them a checkpoint can be compared with live objects before any of its data are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ckptfmt._core.container import module_versions as versions
from ckptfmt._core.container.component import Component
from ckptfmt._core.container.per_rank import choose
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.format.packing import TensorRef, Typed
from ckptfmt._core.torch.restore.modules import same_bits
from ckptfmt._core.torch.state.parameter_names import groups_of
from ckptfmt._core.torch.tensors.dtypes import DTYPES, shape_in_torch
from ckptfmt._core.training.ranks import World

__all__ = ["Origin", "Skeletons"]


class Origin(NamedTuple):
    """The tensor of a file that a stand-in stands for.

    Attributes:
        component: Name of its component.
        tensor: Its name in the component.
    """

    component: str
    tensor: str


class Skeletons:
    """The states of the components of a checkpoint, with stand-ins for the tensors that are to be read in place.

    Where a value differs between ranks, it is that of this rank, if the checkpoint is of as many ranks as there are
    here; else that of rank 0.

    Args:
        checkpoint: The checkpoint.
        world: Which rank this is, and of how many.

    Attributes:
        per_rank: For each component that was read, the places of the values that differ between ranks, and how many
            ranks have one there.
    """

    def __init__(self, checkpoint: Checkpoint, world: World) -> None:
        self.per_rank: dict[str, dict[str, int]] = {}
        self._checkpoint = checkpoint
        self._world = world
        self._origins: dict[int, tuple[Origin, torch.Tensor]] = {}  # the tensor lives, so its id stays its own
        self._kinds: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}

    def read(self, name: str, live: object) -> Any:
        """Return the state of a component.

        Stand-ins take the place of a module's tensors, and of the tensors of parameters that an optimizer keeps, its
        scalars excepted. Everything else is read, and verified.

        Args:
            name: Name of the component.
            live: The object that is to take it.

        Raises:
            FormatError: It is malformed; IntegrityError if a byte of what was read has changed.
            StorageError: The file cannot be read.
        """
        component = self._checkpoint[name]
        tree = None if component.flat else self._own(component)
        instead = {tensor: self._stand_in(component, tensor) for tensor in _deferred(component, tree, live)}
        state = component.load(instead) if component.flat else component.load(instead, tree)
        return versions.attach(state, component.text_metadata)

    def _own(self, component: Component) -> object:
        """Return the tree of a component as this rank has it."""
        counts = self.per_rank[component.name] = {}

        def pick(place: str, values: Sequence[Any]) -> object:
            counts[place] = len(values)
            return values[self._world.rank if len(values) == self._world.size else 0]

        return choose(component.name, component.structure(), pick)

    def origin(self, tensor: object) -> Origin | None:
        """Return what a tensor stands for; None for anything else."""
        found = self._origins.get(id(tensor))
        return None if found is None else found[0]

    def same_bits(self, a: object, b: object) -> bool:
        """Say whether two tensors of these states hold the same bits: by their digests, if they were not read."""
        first, second = self.origin(a), self.origin(b)
        if first is None or second is None:
            return first is second and same_bits(a, b)
        return self._content(first) == self._content(second)

    def _content(self, origin: Origin) -> tuple[str, tuple[int, ...], bytes]:
        component = self._checkpoint[origin.component]
        entry = component.tensors[origin.tensor]
        return entry.dtype, entry.shape, component.tensor_digests(origin.tensor)

    def _stand_in(self, component: Component, name: str) -> torch.Tensor:
        entry = component.tensors[name]
        kind = entry.dtype, entry.shape
        like = self._kinds.get(kind)
        if like is None:
            shape = shape_in_torch(*kind)
            assert shape is not None  # `_deferred` yields no others
            like = self._kinds[kind] = torch.empty(shape, dtype=DTYPES[entry.dtype], device="meta")
        tensor = like.detach()  # another one like it, at a quarter of the cost
        self._origins[id(tensor)] = Origin(component.name, name), tensor
        return tensor


def _deferred(component: Component, tree: object, live: object) -> Iterator[str]:
    """Yield the names of the tensors that need not be read for a comparison.

    Args:
        component: The component.
        tree: What is wanted of its tree; None if it is flat.
        live: The object that is to take it.
    """
    known = (name for name, entry in component.tensors.items() if shape_in_torch(entry.dtype, entry.shape) is not None)
    if isinstance(live, nn.Module):
        if component.flat:
            yield from known
            return
        candidates = _tensors_in(tree)
    elif groups_of(live) is not None and not component.flat:
        candidates = _moments_in(tree, component)
    else:
        return
    # One that also stands where its values matter, or where it is a part of something else, is read.
    everywhere = Counter(_all_in(tree))
    here = Counter(candidates)
    yield from (name for name in known if here[name] and here[name] == everywhere[name])


def _tensors_in(tree: object) -> Iterator[str]:
    if isinstance(tree, Mapping):
        yield from (value.name for value in tree.values() if isinstance(value, TensorRef))


def _moments_in(tree: object, component: Component) -> Iterator[str]:
    states = tree.get("state") if isinstance(tree, Mapping) else None
    if not isinstance(states, Mapping):
        return
    for number, state in states.items():
        if isinstance(number, int) and isinstance(state, Mapping):
            yield from (name for name in _tensors_in(state) if component.tensors[name].shape)


def _all_in(tree: object) -> Iterator[str]:
    if type(tree) is TensorRef:
        yield tree.name
    elif isinstance(tree, Typed):
        yield from _all_in(tree.value)
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _all_in(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _all_in(value)
