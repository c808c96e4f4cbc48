"""`.npz` files as files of tensors: zip archives of `.npy` arrays. Nothing in them is unpickled.

Memory stays below `_WHOLE_BYTES` and a few blocks more, whatever an array has. One in Fortran order is put into C order
block by block. To that end a compressed one that is longer is decompressed once for each block, up to a limit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from ckptfmt._core.container.tensor_source import ReadChunk, TensorSource, at_hand
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.index import ROOT, Metadata
from ckptfmt._core.interop.base import ComponentSource, TensorFile
from ckptfmt._core.interop.located import located
from ckptfmt._core.interop.readers.npy_header import MAGIC, MAX_HEADER_BYTES, ArrayHeader, parse_header
from ckptfmt._core.pth.data.archive import STORED, Member, read_members
from ckptfmt._core.pth.data.dtypes import ElementType
from ckptfmt._core.pth.data.storages import MemberData, MemoryData, Rework, StorageData
from ckptfmt._core.pth.data.tensors import BLOCK_BYTES, Storage, TensorView, c_strides, view_of
from ckptfmt._core.pth.limits import FREE_REWORK_BYTES, REWORK
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError, UnsafeInputError, UnsupportedFileError

__all__ = ["NpzFile", "open_file"]

_FORM = ".npz"
_SUFFIX = ".npy"
_WHOLE_BYTES = 256 << 20
"""Up to this length, a compressed array in Fortran order is decompressed as a whole, and once."""


@dataclass(frozen=True)
class _Array:
    """An array of the archive.

    Attributes:
        member: Where it is.
        header_bytes: Where its data begin in the member.
        header: What it says of itself.
    """

    member: Member
    header_bytes: int
    header: ArrayHeader

    @property
    def nbytes(self) -> int:
        """Length of its data."""
        return self.member.nbytes - self.header_bytes


class NpzFile(TensorFile):
    """An `.npz` file: one component. Its arrays are checked by the archive's CRC-32 alone."""

    form = "npz"

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.metadata = Metadata()
        self._rework = Rework(REWORK * source.size + FREE_REWORK_BYTES)
        tensors = {}
        with located(source.path, _FORM):
            members = read_members(source)
            for member in members:
                if not member.name.endswith(_SUFFIX):
                    self._fail(f"it holds {member.name!a:.100}, which is no array; name an .npz file of NumPy's")
                name = member.name.removesuffix(_SUFFIX)
                tensors[name] = self._look(member, name)
        self._component = ComponentSource(
            ROOT,
            tensors,
            codec="none" if all(member.method == STORED for member in members) else "deflate",
            stored_bytes=sum(member.stored_bytes for member in members),
            logical_bytes=sum(member.nbytes for member in members),
        )

    @property
    def components(self) -> Mapping[str, ComponentSource]:
        """See `TensorFile.components`."""
        return {ROOT: self._component}

    def _look(self, member: Member, name: str) -> TensorSource:
        data = MemberData(self._source, member, form=_FORM)
        prefix = bytes(data.read(0, min(member.nbytes, 8)))
        version = prefix[6] if len(prefix) == 8 and prefix.startswith(MAGIC) else 0
        wide = 2 if version == 1 else 4
        if version not in (1, 2, 3) or member.nbytes < 8 + wide:
            self._fail(f"{member.name!a:.100} is not an array as NumPy writes it; get the file again")
        length = int.from_bytes(data.read(8, wide), "little")
        header_bytes = 8 + wide + length
        if length > MAX_HEADER_BYTES or header_bytes > member.nbytes:
            self._fail(f"the header of {name!a:.100} has {length:,} bytes; get the file again")
        text = bytes(data.read(8 + wide, length))
        try:
            header = parse_header(text.decode("utf-8" if version == 3 else "latin1"))
        except ValueError as error:
            self._fail(f"the header of {name!a:.100} is not one of NumPy's: {error!s:.200}; get the file again")
        array = _Array(member, header_bytes, header)
        expected = math.prod(header.shape) * header.kind.nbytes
        if not header.kind.pickled and expected != array.nbytes:
            self._fail(
                f"the array {name!a:.100} has {array.nbytes:,} bytes, its header makes them {expected:,}; "
                "get the file again"
            )
        return _StoredArray(header.kind.name, header.shape, self._source, array, self._rework)

    def _fail(self, found: str) -> NoReturn:
        raise ForeignFileError(found, self._source.path, _FORM)


@dataclass(slots=True, eq=False)
class _StoredArray(TensorSource):
    """An array of the archive as a tensor."""

    source: Source
    array: _Array
    rework: Rework

    @property
    def nbytes(self) -> int:
        """See `TensorSource.nbytes`; 0 of one that is not read."""
        return 0 if self.array.header.kind.pickled else self.array.nbytes

    def chunks(self) -> Iterator[ReadChunk]:
        """See `TensorSource.chunks`.

        Raises:
            UnsafeInputError: The array is one of Python objects, which only running code could read.
            UnsupportedFileError: It is a compressed one in Fortran order that would take too long.
            ForeignFileError: It is damaged.
        """
        array, path = self.array, self.source.path
        if array.header.kind.pickled:
            name, advice = array.member.name.removesuffix(_SUFFIX), "save it again as numbers or text"
            raise UnsafeInputError(f"{path}: the array {name!a:.100} holds pickled objects, which are code; {advice}")
        with located(path, _FORM):
            member = MemberData(self.source, array.member, self.rework, _FORM)
            member.read(0, array.header_bytes)  # what follows it is read in order, which is cheapest
            yield from map(at_hand, self._view(_Data(member, array)).chunks())
            member.finish()

    def _view(self, data: StorageData) -> TensorView:
        """Return the elements of the array as a view of its data."""
        array, header = self.array, self.array.header
        kind = ElementType(header.kind.name, header.kind.nbytes, None, word=header.kind.word_bytes)
        strides = c_strides(header.shape)
        if header.fortran and array.nbytes:
            strides = c_strides(header.shape[::-1])[::-1]
            if array.member.method != STORED:
                data = self._decompressed(data)
        storage = Storage(array.member.name, data, kind, header.kind.swapped)
        return view_of(storage, kind, 0, header.shape, strides)

    def _decompressed(self, data: StorageData) -> StorageData:
        """Return the data of a compressed array for reads in any order."""
        array = self.array
        if array.nbytes <= _WHOLE_BYTES:
            return MemoryData(bytes(data.read(0, array.nbytes)))
        if array.nbytes // BLOCK_BYTES * array.nbytes > self.rework.left:
            found = (
                f"the array {array.member.name!a:.100} has {array.nbytes:,} bytes, compressed and in Fortran order, "
                f"the limit is {_WHOLE_BYTES:,}; save it in C order (numpy.ascontiguousarray), or without compression"
            )
            raise UnsupportedFileError(found, self.source.path, _FORM)
        return data


class _Data:
    """The data of an array: what follows its header."""

    def __init__(self, member: MemberData, array: _Array) -> None:
        self._member = member
        self._begin = array.header_bytes
        self.nbytes = array.nbytes

    def read(self, start: int, nbytes: int) -> BytesLike:
        """See `StorageData.read`."""
        return self._member.read(self._begin + start, nbytes)

    def private_map(self) -> memoryview | None:
        """See `StorageData.private_map`."""
        memory = self._member.private_map()
        return None if memory is None else memory[self._begin : self._begin + self.nbytes]

    def finish(self) -> None:
        """See `StorageData.finish`."""
        self._member.finish()


def open_file(source: Source, *, inert: Collection[str] = ()) -> NpzFile:
    """Return the arrays of the `.npz` file in `source`.

    Args:
        source: The file.
        inert: Of no use here: no pickle in it is read.

    Raises:
        ForeignFileError: It is not valid.
        StorageError: It cannot be read.
    """
    del inert
    return NpzFile(source)
