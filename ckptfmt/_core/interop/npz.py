"""`.npz` files as files of tensors: zip archives of `.npy` arrays. Nothing in them is unpickled.

Memory stays below `_WHOLE_BYTES` and a few blocks more, whatever an array has. One in Fortran order is put into C order
block by block. To that end a compressed one that is longer is decompressed once for each block, up to a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.index import ROOT, Metadata
from ckptfmt._core.interop.base import Chunk, Part, TensorFile, TensorInfo
from ckptfmt._core.interop.located import located
from ckptfmt._core.interop.npy_header import MAGIC, MAX_HEADER_BYTES, ArrayHeader, parse_header
from ckptfmt._core.pth.data.archive import STORED, Member, read_members
from ckptfmt._core.pth.data.dtypes import ElementType
from ckptfmt._core.pth.data.storages import MemberData, MemoryData, Rework, StorageData
from ckptfmt._core.pth.data.tensors import BLOCK_BYTES, Storage, TensorView, c_strides, view_of
from ckptfmt._core.pth.limits import FREE_REWORK_BYTES, REWORK
from ckptfmt._core.storage import LocalSource
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
    """An `.npz` file: one part. Its arrays are checked by the archive's CRC-32 alone."""

    form = "npz"

    def __init__(self, source: LocalSource) -> None:
        super().__init__(source)
        self.metadata = Metadata()
        self.parts = {ROOT: _NpzPart(source)}


class _NpzPart(Part):
    name = ROOT

    def __init__(self, source: LocalSource) -> None:
        self._source = source
        self.text_metadata = {}
        self.tensors = {}
        self._arrays: dict[str, _Array] = {}
        self._rework = Rework(REWORK * source.size + FREE_REWORK_BYTES)
        with located(source.path, _FORM):
            members = read_members(source)
            for member in members:
                if not member.name.endswith(_SUFFIX):
                    self._fail(f"it holds {member.name!a:.100}, which is no array; name an .npz file of NumPy's")
                name = member.name.removesuffix(_SUFFIX)
                self.tensors[name], self._arrays[name] = self._look(member, name)
        self.stored_bytes = sum(member.stored_bytes for member in members)
        self.logical_bytes = sum(member.nbytes for member in members)
        self.codec = "none" if all(member.method == STORED for member in members) else "deflate"

    def chunks(self, name: str) -> Iterator[Chunk]:
        """See `Part.chunks`.

        Raises:
            UnsafeInputError: The array is one of Python objects, which only running code could read.
            UnsupportedFileError: It is a compressed one in Fortran order that would take too long.
            ForeignFileError: It is damaged.
        """
        array = self._arrays[name]
        path = self._source.path
        if array.header.kind.pickled:
            advice = "save it again as numbers or text"
            raise UnsafeInputError(f"{path}: the array {name!a:.100} holds pickled objects, which are code; {advice}")
        with located(path, _FORM):
            member = MemberData(self._source, array.member, self._rework)
            member.read(0, array.header_bytes)  # what follows it is read in order, which is cheapest
            for chunk in self._view(array, _Data(member, array)).chunks():
                yield partial(_given, chunk)
            member.finish()

    def _view(self, array: _Array, data: StorageData) -> TensorView:
        """Return the elements of an array as a view of its data."""
        header = array.header
        kind = ElementType(header.kind.name, header.kind.nbytes, None, word=header.kind.word_bytes)
        strides = c_strides(header.shape)
        if header.fortran and array.nbytes:
            strides = c_strides(header.shape[::-1])[::-1]
            if array.member.method != STORED:
                data = self._decompressed(array, data)
        storage = Storage(array.member.name, data, kind, header.kind.swapped)
        return view_of(storage, kind, 0, header.shape, strides)

    def _decompressed(self, array: _Array, data: StorageData) -> StorageData:
        """Return the data of a compressed array for reads in any order."""
        if array.nbytes <= _WHOLE_BYTES:
            return MemoryData(bytes(data.read(0, array.nbytes)))
        if array.nbytes // BLOCK_BYTES * array.nbytes > self._rework.left:
            found = (
                f"the array {array.member.name!a:.100} has {array.nbytes:,} bytes, compressed and in Fortran order, "
                f"the limit is {_WHOLE_BYTES:,}; save it in C order (numpy.ascontiguousarray), or without compression"
            )
            raise UnsupportedFileError(found, self._source.path, _FORM)
        return data

    def _look(self, member: Member, name: str) -> tuple[TensorInfo, _Array]:
        data = MemberData(self._source, member)
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
        info = TensorInfo(ROOT, name, header.kind.name, header.shape, 0 if header.kind.pickled else array.nbytes)
        if not header.kind.pickled and info.elements * header.kind.nbytes != array.nbytes:
            expected = info.elements * header.kind.nbytes
            self._fail(
                f"the array {name!a:.100} has {array.nbytes:,} bytes, its header makes them {expected:,}; "
                "get the file again"
            )
        return info, array

    def _fail(self, found: str) -> NoReturn:
        raise ForeignFileError(found, self._source.path, _FORM)


class _Data:
    """The data of an array: what follows its header."""

    def __init__(self, member: MemberData, array: _Array) -> None:
        self._member = member
        self._begin = array.header_bytes
        self.nbytes = array.nbytes

    def read(self, start: int, nbytes: int) -> BytesLike:
        """See `StorageData.read`."""
        return self._member.read(self._begin + start, nbytes)

    def finish(self) -> None:
        """See `StorageData.finish`."""
        self._member.finish()


def _given(chunk: BytesLike) -> BytesLike:
    return chunk


def open_file(source: LocalSource) -> NpzFile:
    """Return the arrays of the `.npz` file in `source`.

    Raises:
        ForeignFileError: It is not valid.
        StorageError: It cannot be read.
    """
    return NpzFile(source)
