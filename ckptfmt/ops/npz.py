"""`.npz` files as files of tensors: zip archives of `.npy` arrays. Nothing in them is unpickled."""

from __future__ import annotations

import ast
import errno
import io
import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, NoReturn

from ckptfmt.errors import UnsafeInputError
from ckptfmt.format.digest import CHUNK_BYTES, BytesLike
from ckptfmt.format.index import ROOT, Metadata
from ckptfmt.format.layout import MAX_UINT
from ckptfmt.ops.failures import ForeignFileError
from ckptfmt.ops.sources import Chunk, Part, TensorFile, TensorInfo
from ckptfmt.storage import LocalSource

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["NpzFile", "open_file"]

_NPY_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000  # NumPy's own limit for files that are not trusted
_SUFFIX = ".npy"
_DTYPES = {
    "b1": "BOOL",
    "u1": "U8",
    "i1": "I8",
    "u2": "U16",
    "i2": "I16",
    "u4": "U32",
    "i4": "I32",
    "u8": "U64",
    "i8": "I64",
    "f2": "F16",
    "f4": "F32",
    "f8": "F64",
    "c8": "C64",
    "c16": "C128",
}
_DESCR = re.compile(r"([<>=|])([A-Za-z])(\d+)")


@dataclass(frozen=True)
class _Array:
    """What the header of a `.npy` array says.

    Attributes:
        entry: Its entry in the archive.
        header_bytes: Where its data begin in the entry.
        swapped: Bytes of one number if they stand in big-endian order, else 1.
        fortran: Shape if the data are in Fortran order and that differs from C order, else None.
        itemsize: Bytes of an element.
        pickled: Whether its data are a pickle.
    """

    entry: zipfile.ZipInfo
    header_bytes: int
    swapped: int
    fortran: tuple[int, ...] | None
    itemsize: int
    pickled: bool


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
        self._path = source.path
        self.text_metadata = {}
        self.tensors = {}
        self._arrays: dict[str, _Array] = {}
        self._archive = self._open(source)
        entries = self._archive.infolist()
        for entry in entries:
            if not entry.filename.endswith(_SUFFIX):
                self._fail(f"it holds {entry.filename[:100]!r}, which is no array; name an .npz file of NumPy's")
            name = entry.filename.removesuffix(_SUFFIX)
            if name in self.tensors:
                self._fail(f"the array {name!r} stands in it twice; get the file again")
            self.tensors[name], self._arrays[name] = self._look(entry, name)
        self.stored_bytes = sum(entry.compress_size for entry in entries)
        self.logical_bytes = sum(entry.file_size for entry in entries)
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        self.codec = "deflate" if packed else "none"

    def chunks(self, name: str) -> Iterator[Chunk]:
        """See `Part.chunks`. An array in Fortran order is read as a whole; all others chunk by chunk.

        Raises:
            UnsafeInputError: The array is one of Python objects, which only running code could read.
        """
        array, nbytes = self._arrays[name], self.tensors[name].nbytes
        if array.pickled:
            advice = "save it again as numbers or text"
            raise UnsafeInputError(f"{self._path}: the array {name!r} holds pickled objects, which are code; {advice}")
        with self._stream(array.entry) as stream:
            self._exactly(stream, array.header_bytes)
            step = CHUNK_BYTES if array.fortran is None else max(nbytes, 1)
            for start in range(0, nbytes, step):
                data = self._exactly(stream, min(step, nbytes - start))
                for chunk in self._arranged(data, array):
                    yield partial(_given, chunk)
            if stream.read(1):
                self._fail(f"the array {name!r} is longer than its header says; get the file again")

    def _arranged(self, data: bytes, array: _Array) -> Iterator[BytesLike]:
        """Yield data in C order, little-endian, as chunks."""
        if array.swapped == 1 and array.fortran is None:
            yield data
            return
        from ckptfmt.ops.arrays import rearranged

        ordered = rearranged(data, swapped=array.swapped, itemsize=array.itemsize, fortran=array.fortran)
        for start in range(0, len(ordered), CHUNK_BYTES):
            yield ordered[start : start + CHUNK_BYTES]

    def _open(self, source: LocalSource) -> zipfile.ZipFile:
        try:
            archive = zipfile.ZipFile(io.BufferedReader(_SourceFile(source)))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
            self._fail(f"{error}; get the file again")
        for entry in archive.infolist():
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                self._fail(f"{entry.filename[:100]!r} is encrypted, or compressed in another way than NumPy does it")
        return archive

    def _stream(self, entry: zipfile.ZipInfo) -> IO[bytes]:
        try:
            return self._archive.open(entry)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
            self._fail(f"{error}; get the file again")

    def _look(self, entry: zipfile.ZipInfo, name: str) -> tuple[TensorInfo, _Array]:
        with self._stream(entry) as stream:
            prefix = self._exactly(stream, 8)
            wide = 2 if prefix[6] == 1 else 4
            length = int.from_bytes(self._exactly(stream, wide), "little")
            if prefix[:6] != _NPY_MAGIC or prefix[6] not in (1, 2, 3) or length > _MAX_HEADER_BYTES:
                self._fail(f"{entry.filename[:100]!r} is not an array as NumPy writes it; get the file again")
            text = self._exactly(stream, length)
        try:
            header = ast.literal_eval(text.decode("latin1" if prefix[6] < 3 else "utf-8").strip())
            descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
            if not (isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)):
                raise ValueError(f"the shape {shape!r:.80}")
            dtype, itemsize, swapped = _dtype(descr)
        except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError) as error:
            self._fail(f"the header of {name!r} is not one of NumPy's: {error!s:.200}")
        nbytes = math.prod(shape) * itemsize
        header_bytes = 8 + wide + length
        pickled = "O" in str(descr)
        if nbytes > MAX_UINT or (not pickled and header_bytes + nbytes != entry.file_size):
            self._fail(
                f"the array {name!r} has {entry.file_size:,} bytes, its header makes them {header_bytes + nbytes:,}"
            )
        folded = shape if fortran and sum(size > 1 for size in shape) > 1 else None
        info = TensorInfo(ROOT, name, dtype, shape, nbytes)
        return info, _Array(entry, header_bytes, swapped, folded, itemsize, pickled)

    def _exactly(self, stream: IO[bytes], nbytes: int) -> bytes:
        try:
            data = stream.read(nbytes)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            self._fail(f"{error}; get the file again")
        if len(data) != nbytes:
            self._fail("an array ends early; get the file again")
        return data

    def _fail(self, found: str) -> NoReturn:
        raise ForeignFileError(self._path, ".npz", found)


class _SourceFile(io.RawIOBase):
    """A source as a file object."""

    def __init__(self, source: LocalSource) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        nbytes = max(0, min(view.nbytes, self._source.size - self._position))
        self._source.read_into(self._position, view[:nbytes])
        self._position += nbytes
        return nbytes


def _given(chunk: BytesLike) -> BytesLike:
    return chunk


def open_file(source: LocalSource) -> NpzFile:
    """Return the arrays of the `.npz` file in `source`.

    Raises:
        ForeignFileError: It is not valid.
        StorageError: It cannot be read.
    """
    return NpzFile(source)


def _dtype(descr: object) -> tuple[str, int, int]:
    """Return our name of a dtype (NumPy's if we have none), bytes of an element, and bytes to be swapped in it."""
    match = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    if match is None:
        if isinstance(descr, str) and descr in ("|O", "O"):
            return "object", 0, 1
        raise ValueError(f"the dtype {descr!r:.80} is not one of numbers or text")
    order, kind, digits = match[1], match[2], int(match[3])
    name = _DTYPES.get(kind + match[3])
    itemsize = digits * 4 if kind == "U" else digits
    if order != ">":
        return name or str(descr), itemsize, 1
    part = itemsize // 2 if kind == "c" else 4 if kind == "U" else itemsize
    return name or str(descr), itemsize, part
