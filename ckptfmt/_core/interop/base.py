"""Files that hold tensors, of our format and of others, behind one interface.

A format comes in with a `TensorFile` and an entry in `interop.detect`. Whatever reads through these classes then
knows the format.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

from ckptfmt._core.container.tensor_source import ReadChunk, TensorSource
from ckptfmt._core.format.index import Metadata, shown_name
from ckptfmt._core.interop.findings import Findings
from ckptfmt._core.storage import Publication, Source

__all__ = ["ComponentSource", "MemberInfo", "RankedValue", "TensorFile", "TensorInfo"]


@dataclass(frozen=True)
class MemberInfo:
    """One member: a run of bytes of the file.

    Attributes:
        name: Name of the member, such as `net.safetensors`.
        kind: What its name says it is: `safetensors`, `msgpack` or `opaque` (spec 6.3).
        codec: How it is stored (spec section 8).
        offset: Absolute offset of its first stored byte.
        stored_bytes: Length as it lies in the file.
        logical_bytes: Length after decoding.
    """

    name: str
    kind: str
    codec: str
    offset: int
    stored_bytes: int
    logical_bytes: int

    def to_json(self) -> dict[str, object]:
        """Return the member in JSON: the attributes under their names."""
        return {
            "name": self.name,
            "kind": self.kind,
            "codec": self.codec,
            "offset": self.offset,
            "stored_bytes": self.stored_bytes,
            "logical_bytes": self.logical_bytes,
        }


class TensorInfo(NamedTuple):
    """What is known of a tensor without reading it.

    A named tuple, which is made in half the time of a frozen dataclass: there may be many.

    Attributes:
        component: Name of its component.
        name: Its name in the component.
        dtype: See `TensorSource`.
        shape: Its shape.
        nbytes: Length of its data before any compression.
    """

    component: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def to_json(self) -> dict[str, object]:
        """Return the tensor in JSON: `component`, `name`, `dtype`, `shape` (array), `nbytes`."""
        return {
            "component": self.component,
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "nbytes": self.nbytes,
        }


@dataclass(frozen=True)
class RankedValue:
    """A value that differs between the ranks of a data-parallel job (spec 11.6 v).

    Attributes:
        place: Its path, such as `net.avg`.
        ranks: Number of ranks with a value of their own.
    """

    place: str
    ranks: int

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `place`, `ranks` (count)."""
        return {"place": self.place, "ranks": self.ranks}


class ComponentSource:
    """One component of a file: its tensors, and the tree that they stand in.

    Args:
        name: Name of the component; `format.index.ROOT` in a file that has no components.
        tensors: Its tensors by name, in its own order.
        codec: How its data are stored.
        stored_bytes: Length as it lies in the file.
        logical_bytes: Length after decoding.
        text_metadata: The `__metadata__` of safetensors.

    Attributes:
        members: Its members, in a file that has some.
        has_digests: Whether the digests of its tensors are known without reading them.
        ranked: The values that differ between ranks, of which only those of rank 0 are here.
    """

    members: tuple[MemberInfo, ...] = ()
    has_digests: bool = False
    ranked: tuple[RankedValue, ...] = ()

    def __init__(
        self,
        name: str,
        tensors: Mapping[str, TensorSource],
        *,
        codec: str = "none",
        stored_bytes: int,
        logical_bytes: int,
        text_metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.tensors = tensors
        self.codec = codec
        self.stored_bytes = stored_bytes
        self.logical_bytes = logical_bytes
        self.text_metadata = text_metadata

    @property
    def shown_name(self) -> str:
        """What messages call it."""
        return shown_name(self.name)

    @cached_property
    def tensor_infos(self) -> Mapping[str, TensorInfo]:
        """What is known of its tensors without reading them, by name."""
        return {
            name: TensorInfo(self.name, name, tensor.dtype, tensor.shape, tensor.nbytes)
            for name, tensor in self.tensors.items()
        }

    @property
    def identity(self) -> str | None:
        """Its identity (spec 12.2), equal for equal content; None where the format has none."""
        return None

    @property
    def flat(self) -> bool:
        """Whether it is a mapping of names to tensors and nothing else (spec 11.1)."""
        return True

    def tree(self) -> object:
        """Return its tree, with `TensorRef` and `Typed` values as they are; None if it is flat.

        Raises:
            FormatError: The tree is damaged.
        """
        return None

    def copy_to(self, file: Publication, header: bytes) -> bool:
        """Let the system copy all data to a file behind a header of safetensors, if they lie like that here.

        Only the header is verified then; the data are when they are read.

        Returns:
            Whether it did; if not, all is to be written.
        """
        del file, header
        return False


class TensorFile(ABC):
    """A file that holds tensors. A context manager that closes it.

    Attributes:
        path: The file, as it was named.
        paths: The files that its content is in, by name: itself, or those of a directory.
        form: Its format: `ckptfmt`, `safetensors`, `npz`.
        file_bytes: Length of the file.
        metadata: Facts about the checkpoint; all absent where the format has none.
        identity: Its identity, 64 hex digits (spec 12.1); None where the format has none.
        version: Format version as (major, minor); None where the format has none.
        required_features: Features that a reader has to know.
        opaque: Members that belong to no component, in file order.
        opaque_digests: Their digests (spec 7.2) by name: equal for equal content.
        checked: Whether what is read is checked against digests.
    """

    path: str
    paths: tuple[str, ...]
    form: str
    file_bytes: int
    metadata: Metadata
    identity: str | None = None
    version: tuple[int, int] | None = None
    required_features: tuple[str, ...] = ()
    opaque: tuple[MemberInfo, ...] = ()
    opaque_digests: Mapping[str, bytes] = MappingProxyType({})
    checked: bool = False

    def __init__(self, source: Source) -> None:
        self._source = source
        self.path = source.path
        self.paths = (source.path,)
        self.file_bytes = source.size

    @property
    @abstractmethod
    def components(self) -> Mapping[str, ComponentSource]:
        """Its components by name, in file order.

        Raises:
            StateError: The file holds something that cannot be expressed as components.
        """

    @property
    def state(self) -> object:
        """Its content as a tree whose tensors are `TensorSource`: of a file without components, these by name."""
        return {name: tensor for component in self.components.values() for name, tensor in component.tensors.items()}

    @property
    def text_metadata(self) -> Mapping[str, str]:
        """The `__metadata__` of a file of safetensors."""
        return {}

    @property
    def tensors(self) -> Iterator[TensorInfo]:
        """All tensors, component by component."""
        for component in self.components.values():
            yield from component.tensor_infos.values()

    def opaque_chunks(self, name: str) -> Iterator[tuple[int, ReadChunk]]:
        """Yield the chunks of a member of `opaque`, each with its length in bytes."""
        raise KeyError(name)  # a format without such members

    def findings(self) -> Findings:
        """Return what else is to be reported of its content."""
        return Findings(producer=self.metadata.producer)

    def refuse_unknown(self) -> None:  # noqa: B027 - most formats name no classes
        """Refuse the file if it holds objects of packages that are not known.

        Raises:
            UnsafeInputError: It does.
        """

    def finish(self) -> None:  # noqa: B027 - most formats leave nothing
        """Check what reading all tensors has left unchecked, where the format has a checksum over it.

        Raises:
            CkptfmtError: The file is damaged.
        """

    def close(self) -> None:
        """Release the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
