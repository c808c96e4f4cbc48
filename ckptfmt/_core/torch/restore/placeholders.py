"""State of a component with placeholders for its large tensors: dtype and shape without memory.

With them, a checkpoint can be compared with live objects before its data is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ckptfmt._core.container import module_versions as versions
from ckptfmt._core.container.component import Component
from ckptfmt._core.container.per_rank import choose
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.format.packing import TensorRef
from ckptfmt._core.format.trees import walk
from ckptfmt._core.torch.restore.modules import same_bits
from ckptfmt._core.torch.state.parameter_names import groups_of
from ckptfmt._core.torch.tensors.dtypes import DTYPES, shape_in_torch
from ckptfmt._core.training.ranks import World

__all__ = ["Origin", "Skeletons"]


class Origin(NamedTuple):
    """The tensor of a file behind a placeholder.

    Attributes:
        component: Name of its component.
        tensor: Name of the tensor in the component.
    """

    component: str
    tensor: str


class Skeletons:
    """States of the components of a checkpoint, with placeholders for the tensors to be read in place.

    A value that differs between ranks is that of this rank, if the number of ranks is the same as in the checkpoint;
    otherwise that of rank 0.

    Args:
        checkpoint: The checkpoint.
        world: Rank and number of ranks.

    Attributes:
        per_rank: For each component that was read, path of each value that differs between ranks -> number of ranks
            that have one.
    """

    def __init__(self, checkpoint: Checkpoint, world: World) -> None:
        self.per_rank: dict[str, dict[str, int]] = {}
        self._checkpoint = checkpoint
        self._world = world
        self._origins: dict[int, tuple[Origin, torch.Tensor]] = {}  # the tensor is kept, so its id stays unique
        self._kinds: dict[tuple[str, tuple[int, ...]], torch.Tensor | None] = {}

    def read(self, name: str, live: object) -> Any:
        """Return the state of a component.

        Placeholders replace the tensors of a module, and the per-parameter tensors of an optimizer except scalars.
        Everything
        else is read and verified.

        Args:
            name: Name of the component.
            live: The object to restore.

        Raises:
            FormatError: The state is malformed; IntegrityError if a byte that was read has changed.
            StorageError: The file cannot be read.
        """
        component = self._checkpoint[name]
        tree = None if component.flat else self._own(component)
        stand_ins = ((tensor, self._stand_in(component, tensor)) for tensor in _deferred(component, tree, live))
        instead = {tensor: stand_in for tensor, stand_in in stand_ins if stand_in is not None}
        state = component.load(instead) if component.flat else component.load(instead, tree)
        return versions.attach(state, component.text_metadata)

    def _own(self, component: Component) -> object:
        """Return the tree of a component with the values of this rank."""
        counts = self.per_rank[component.name] = {}

        def pick(place: str, values: Sequence[Any]) -> object:
            counts[place] = len(values)
            return values[self._world.rank if len(values) == self._world.size else 0]

        return choose(component.name, component.structure(), pick)

    def origin(self, tensor: object) -> Origin | None:
        """Return the origin of a placeholder; None for anything else."""
        found = self._origins.get(id(tensor))
        return None if found is None else found[0]

    def same_bits(self, a: object, b: object) -> bool:
        """Return whether two tensors of these states have the same bits: by their digests, if they were not read."""
        first, second = self.origin(a), self.origin(b)
        if first is None or second is None:
            return first is second and same_bits(a, b)
        return self._content(first) == self._content(second)

    def _content(self, origin: Origin) -> tuple[str, tuple[int, ...], bytes]:
        component = self._checkpoint[origin.component]
        entry = component.tensors[origin.tensor]
        return entry.dtype, entry.shape, component.tensor_digests(origin.tensor)

    def _stand_in(self, component: Component, name: str) -> torch.Tensor | None:
        """Return a new placeholder; None if PyTorch has no tensor of this dtype and shape."""
        entry = component.tensors[name]
        kind = entry.dtype, entry.shape
        if kind not in self._kinds:
            shape = shape_in_torch(*kind)
            empty = None if shape is None else torch.empty(shape, dtype=DTYPES[entry.dtype], device="meta")
            self._kinds[kind] = empty
        like = self._kinds[kind]
        if like is None:
            return None
        tensor = like.detach()  # a new one like it, at a quarter of the cost
        self._origins[id(tensor)] = Origin(component.name, name), tensor
        return tensor


def _deferred(component: Component, tree: object, live: object) -> Iterable[str]:
    """Return the names of the tensors that need not be read for a comparison.

    Args:
        component: The component.
        tree: The required part of its tree; None if it is flat.
        live: The object to restore.
    """
    if isinstance(live, nn.Module):
        if component.flat:
            return component.tensors
        candidates = _tensors_in(tree)
    elif groups_of(live) is not None and not component.flat:
        candidates = _moments_in(tree, component)
    else:
        return ()
    # A tensor that also occurs where its values matter, or as a part of something else, is read.
    everywhere = Counter([node.name for node in walk(tree) if type(node) is TensorRef])
    return [name for name, count in Counter(candidates).items() if count == everywhere[name]]


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
