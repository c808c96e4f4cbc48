"""Digests of a component for a comparison between ranks: of all small values, and of all or a sample of the rest.

Data-parallel training keeps parameters and their optimizer state equal on all ranks. They are compared completely once,
and by samples from then on. Buffers and everything else are compared each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

from torch import nn

from ckptfmt._core.container.planning import SMALL_BYTES
from ckptfmt._core.container.state.flattening import FlatComponent
from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.digest import digest, digest_parts, digest_stream
from ckptfmt._core.format.packing import encode
from ckptfmt._core.system.batches import batches
from ckptfmt._core.system.workers import CORES, Workers
from ckptfmt._core.torch.distributed.data_parallel import synced_buffers
from ckptfmt._core.torch.distributed.wrappers import plain_namer, unwrap
from ckptfmt._core.torch.state.parameter_names import groups_of
from ckptfmt._core.training.stateful import Stateful

__all__ = ["Fingerprint", "Subject", "subject_of"]

_LARGE_BYTES = 1 << 20
_WINDOW_BYTES = 64 << 10
_WINDOWS = 64


class Fingerprint(NamedTuple):
    """Digests of a component, equal on two ranks if the component is.

    Attributes:
        small: Digest of its structure, the dtypes and shapes of its tensors, and the data of small tensors.
        large: Digest of the data of the other tensors, or of a sample.
    """

    small: bytes
    large: bytes


@dataclass(frozen=True)
class Subject:
    """A component of one rank, to compare with those of other ranks.

    Attributes:
        component: The component.
        large: Names of the tensors that are sampled.
        ignored: Names of the tensors whose data is ignored.
    """

    component: FlatComponent
    large: frozenset[str]
    ignored: frozenset[str]

    def fingerprint(self, turn: int | None) -> Fingerprint:
        """Return the digests.

        Args:
            turn: Number of earlier samples of large tensors: each turn samples other pieces. None: all their data.
        """
        tensors = self.component.tensors
        others = self.large | self.ignored
        small = (_read(leaf) for name, leaf in tensors.items() if name not in others)
        head = repr([(name, leaf.dtype, leaf.shape) for name, leaf in tensors.items()]).encode(errors="surrogatepass")
        large = [leaf for name, leaf in tensors.items() if name in self.large]
        data = _digests(large) if turn is None else _sample(large, turn)
        return Fingerprint(digest_stream(chain([self.component.structure or b"", head], small)), digest_stream(data))

    def data_digests(self, *, large: bool) -> Mapping[str, bytes]:
        """Return a digest of the dtype, shape and data of each tensor; without the data where it is ignored.

        Args:
            large: Whether to include the data of large tensors.
        """
        tensors = self.component.tensors
        counting = [name for name in tensors if name not in self.ignored and (large or name not in self.large)]
        data = dict(zip(counting, _digests([tensors[name] for name in counting]), strict=True))
        return {
            name: digest_parts(encode([leaf.dtype, list(leaf.shape)]), data.get(name, b""))
            for name, leaf in tensors.items()
        }


def subject_of(live: Stateful, component: FlatComponent) -> Subject:
    """Return the subject for the comparison of an object.

    Args:
        live: The object.
        component: Its state.
    """
    tensors = component.tensors
    if isinstance(live, nn.Module):
        inner = unwrap(live)
        plain = plain_namer(inner)
        parameters = {plain(name) for name, _ in inner.named_parameters(remove_duplicate=False)}
        return Subject(component, frozenset(parameters & tensors.keys()), synced_buffers(live) & tensors.keys())
    if groups_of(live) is not None:
        large = {name for name, leaf in tensors.items() if any(size != 1 for size in leaf.shape)}
    else:
        large = {name for name, leaf in tensors.items() if leaf.nbytes > _LARGE_BYTES}
    return Subject(component, frozenset(large), frozenset())


def _sample(leaves: Sequence[TensorSource], turn: int) -> Iterator[BytesLike]:
    """Yield pieces of some of the tensors. Over the turns, every piece of every tensor is sampled."""
    count = min(len(leaves), _WINDOWS)
    for position in range(turn * count, (turn + 1) * count):
        visit, number = divmod(position, len(leaves))
        yield leaves[number].window(visit, _WINDOW_BYTES)


def _digests(leaves: Sequence[TensorSource]) -> list[bytes]:
    """Return the digest of the data of each tensor.

    This thread reads the data, because a device's tensors are up to date in its stream; other threads hash it.
    """
    with Workers(CORES, "ckptfmt-compare") as workers:
        together = batches(leaves, lambda leaf: leaf.nbytes, _LARGE_BYTES)
        jobs = (partial(_digest_all, [_read(leaf) for leaf in batch]) for batch in together)
        return [found for batch in workers.in_order(jobs) for found in batch]


def _read(leaf: TensorSource) -> BytesLike:
    return leaf.read_copy() if leaf.nbytes <= SMALL_BYTES else leaf.read()


def _digest_all(data: Sequence[BytesLike]) -> list[bytes]:
    return [digest(piece) for piece in data]
