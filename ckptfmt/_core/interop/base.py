"""Files that hold tensors, ours and others', behind one interface.

A format comes in with a `TensorFile`, a `Part` for each of its mappings of tensors, and an entry in
`_FORMATS`. Whatever reads through these two classes then knows the format.
"""

from __future__ import annotations

import importlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.digest import digest
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.layout import PREAMBLE_MAGIC
from ckptfmt._core.runs.scan import EXTENSION
from ckptfmt._core.storage import AtomicFile, LocalSource, open_source
from ckptfmt.errors import StorageError

__all__ = ["Chunk", "MemberInfo", "Part", "TensorFile", "TensorInfo", "is_ours", "open_tensors"]

Chunk = Callable[[], BytesLike]
"""Returns the checked bytes of one chunk; may be called from any thread, once."""


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


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor.

    Attributes:
        component: Name of its component.
        name: Its name in the component.
        dtype: Name of the dtype (spec section 9), such as `F32`; in a file of another format that has a dtype
            beyond these, what it is called there.
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


class Part(ABC):
    """One component of a file: its tensors, and the tree that they stand in.

    Attributes:
        name: Name of the component; `_root` in a file that has no components.
        tensors: Its tensors by name, in its own order.
        codec: How its data are stored.
        stored_bytes: Length as it lies in the file.
        logical_bytes: Length after decoding.
        members: Its members, in a file that has some.
        text_metadata: The `__metadata__` of safetensors.
        has_digests: Whether the digests of its tensors are known without reading them.
    """

    name: str
    tensors: Mapping[str, TensorInfo]
    codec: str
    stored_bytes: int
    logical_bytes: int
    members: tuple[MemberInfo, ...] = ()
    text_metadata: Mapping[str, str]
    has_digests: bool = False

    @abstractmethod
    def chunks(self, name: str) -> Iterator[Chunk]:
        """Yield the chunks of a tensor: its data in C order, little-endian, cut every 4 MiB (spec section 7).

        The iterator belongs to one thread; what it yields may be called on others. At most a few of them should
        be held at a time, because some hold their bytes.
        """

    def copy_to(self, file: AtomicFile, header: bytes) -> bool:
        """Let the system copy all data to a file behind a header of safetensors, if they lie like that here.

        Only the header is verified then; the data are when they are read.

        Returns:
            Whether it did; if not, all is to be written.
        """
        del file, header
        return False

    def digest(self, name: str) -> bytes:
        """Return the digests of a tensor's chunks (spec 7.2), one after the other: equal for equal data.

        A file that does not have them is read for it.
        """
        return b"".join(digest(chunk()) for chunk in self.chunks(name))

    def read(self, name: str) -> bytes:
        """Return all data of a tensor. For small ones."""
        return b"".join(chunk() for chunk in self.chunks(name))

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


class TensorFile(ABC):
    """A file that holds tensors. A context manager that closes it.

    Attributes:
        path: The file, as it was named.
        form: Its format: `ckptfmt`, `safetensors`, `npz`.
        file_bytes: Length of the file.
        metadata: Facts about the checkpoint; all absent where the format has none.
        parts: Its components by name, in file order.
        identity: Its identity, 64 hex digits (spec 12.1); None where the format has none.
        version: Format version as (major, minor); None where the format has none.
        required_features: Features that a reader has to know.
        opaque: Members that belong to no component, in file order.
        opaque_digests: Their digests (spec 7.2) by name: equal for equal content.
        checked: Whether what is read is checked against digests.
    """

    path: str
    form: str
    file_bytes: int
    metadata: Metadata
    parts: Mapping[str, Part]
    identity: str | None = None
    version: tuple[int, int] | None = None
    required_features: tuple[str, ...] = ()
    opaque: tuple[MemberInfo, ...] = ()
    opaque_digests: Mapping[str, bytes] = MappingProxyType({})
    checked: bool = False

    def __init__(self, source: LocalSource) -> None:
        self._source = source
        self.path = source.path
        self.file_bytes = source.size

    @property
    def tensors(self) -> Iterator[TensorInfo]:
        """All tensors, component by component."""
        for part in self.parts.values():
            yield from part.tensors.values()

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


_HEAD_BYTES = 512
_NO_LENGTH = 1 << 40  # of no header, nor of one with a wrong length: eight bytes of something else


def _is_zip(head: bytes) -> bool:
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _NO_LENGTH


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" or head[:1] in (b"(", b"]", b"}", b"c")


# How a format is recognized by its first bytes, and the module whose `open_file(source)` reads it, or, of one that may
# hold pickles, `open_file(source, inert=...)`. A module is imported when it is needed. What none of them recognizes is
# taken for ours, which says what is wrong with it.
_FORMATS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (_is_zip, "ckptfmt._core.interop.zip_archives"),
    (_is_safetensors, "ckptfmt._core.interop.safetensors"),
    (_is_tar, "ckptfmt._core.interop.pth"),
    (_is_pickle, "ckptfmt._core.interop.pth"),
)
_PICKLED = frozenset({"ckptfmt._core.interop.zip_archives", "ckptfmt._core.interop.pth"})
_OURS = "ckptfmt._core.interop.native"
# What is left to its name, because its first bytes are none of the above: its reader says what is wrong with it.
_BY_NAME = {".safetensors": "ckptfmt._core.interop.safetensors", ".npz": "ckptfmt._core.interop.npz"}


def _reader_of(path: str, head: bytes) -> str:
    """Return the module that reads a file with these first bytes."""
    found = next((name for recognized, name in _FORMATS if recognized(head)), _OURS)
    if found == _OURS and not head.startswith(PREAMBLE_MAGIC[:1]):
        return _BY_NAME.get(Path(path).suffix.lower(), _OURS)
    return found


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Say whether `open_tensors` takes a file for one of ours, sound or not, because no other format claims it.

    Raises:
        StorageError: It cannot be read.
    """
    with open_source(path) as source:
        head = source.read(0, min(source.size, _HEAD_BYTES))
    return _reader_of(os.fspath(path), head) == _OURS


def open_tensors(path: str | os.PathLike[str], *, inert: Collection[str] = ()) -> TensorFile:
    """Open a checkpoint, a file of PyTorch, `.safetensors` or `.npz`; what it is, is told by its content.

    A directory is opened as the checkpoint that it is, if it is one of Hugging Face's.

    Args:
        path: The file or directory.
        inert: Names in its pickles to keep as inert data instead of refusing them (see
            `pth.reading.read_state`).

    Raises:
        FormatError: It is not a valid ckptfmt file, or of a newer version.
        ForeignFileError: It is not a valid file of the other formats.
        UnsafeInputError: It asks for code to be run.
        StateError: It holds something that cannot be expressed.
        StorageError: It cannot be read.
    """
    if Path(path).is_dir():
        directories = importlib.import_module("ckptfmt._core.interop.huggingface")
        if not directories.is_checkpoint_directory(path) and any(Path(path).glob(f"*{EXTENSION}")):
            advice = f"name one of them, such as the newest: `ckptfmt latest {os.fspath(path)}`"
            raise StorageError(f"{os.fspath(path)}: is a directory of checkpoints; {advice}")
        return _as_opened(directories.open_directory(path, inert=inert))
    source = open_source(path)
    try:
        head = source.read(0, min(source.size, _HEAD_BYTES))
        module = _reader_of(source.path, head)
        options = {"inert": inert} if module in _PICKLED else {}
        opened = _as_opened(importlib.import_module(module).open_file(source, **options))
    except BaseException:
        source.close()
        raise
    return opened


def _as_opened(opened: object) -> TensorFile:
    assert isinstance(opened, TensorFile)
    return opened
