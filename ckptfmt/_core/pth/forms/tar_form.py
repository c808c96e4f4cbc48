"""The oldest form of `torch.save`, a tar archive: `storages`, `tensors` and `pickle`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress

from ckptfmt._core.pth.data.byte_reader import ByteReader
from ckptfmt._core.pth.data.storages import RangeData
from ckptfmt._core.pth.data.tensors import Storage, tensor_leaf, view_of
from ckptfmt._core.pth.forms.container import Container, Form, Pickled, read_pickles, scan_bytes
from ckptfmt._core.pth.forms.stream_form import slice_of
from ckptfmt._core.pth.forms.zip_form import storage_type
from ckptfmt._core.pth.limits import MAX_CONTAINERS, MAX_DIMENSIONS, MAX_MEMBERS
from ckptfmt._core.pth.nodes import Global, Persistent
from ckptfmt._core.pth.pickle.machine import Budget
from ckptfmt._core.pth.pickle.pickle_vm import run_pickle
from ckptfmt._core.pth.values.builder import Tensor
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError

__all__ = ["read_tar"]

_MAGIC, _MAGIC_OFFSET = b"ustar", 257  # of every header in it
_BLOCK_BYTES = 512
_MOST_PADDING_BYTES = 1 << 20
_MOST_SCANNED_BYTES = 1 << 20
_PARTS = ("storages", "tensors", "pickle")

_Range = tuple[int, int]


def read_tar(source: Source) -> Container:
    """Return the archive that `source` is."""
    pickles: list[Pickled] = []
    budget = Budget()
    behind: int | None = None
    try:
        members, end = _directory(source)
        behind = _begins_again(source, end)
        if behind is not None:
            raise ForeignFileError(f"bytes that belong to no member follow the tar archive, from byte {behind} on")
    except ForeignFileError as fault:
        return Container(Form.TAR, tuple(_scan_all(source, behind, budget)), fault)
    reader = _Reader(source, pickles, budget)
    try:
        missing = [name for name in _PARTS if name not in members]
        if missing:
            raise ForeignFileError(f"a tar archive without {missing[0]}, so it is none of PyTorch's; unpack it first")
        reader.read_storages(members["storages"])
        reader.read_tensors(members["tensors"])
        root = reader.read_root(members["pickle"])
    except ForeignFileError as fault:
        known = {pickle.part for pickle in pickles}
        with suppress(ForeignFileError):
            pickles += [pickle for pickle in _scan(source, members, budget) if pickle.part not in known]
        return Container(Form.TAR, tuple(pickles), fault)
    others = {name: where for name, where in members.items() if name not in _PARTS}
    try:
        pickles += _scan(source, others, budget)
    except ForeignFileError as fault:
        return Container(Form.TAR, tuple(pickles), fault)
    dropped = dict.fromkeys((name for name in others if name != "sys_info"), "it is no part of the state")
    return Container(Form.TAR, tuple(pickles), None, root, reader.resolve, "PyTorch before 0.1.10, tar", dropped)


class _Reader:
    def __init__(self, source: Source, pickles: list[Pickled], budget: Budget) -> None:
        self._source = source
        self._pickles = pickles
        self._budget = budget
        self._storages: dict[int, Storage] = {}
        self._tensors: dict[int, Tensor] = {}

    def _next(self, reader: ByteReader, part: str) -> object:
        run = run_pickle(reader, self._budget)
        self._pickles.append(Pickled(part, run))
        if run.error is not None:
            raise run.error.inside(part)
        return run.value

    def _reader(self, where: _Range) -> ByteReader:
        return ByteReader(source=self._source, start=where[0], end=sum(where))

    def read_storages(self, where: _Range) -> None:
        """Read the number of storages; for each a pickle, its length and its elements; then a pickle of views."""
        reader = self._reader(where)
        for _ in range(_count(self._next(reader, "storages"))):
            match self._next(reader, "storages"):
                case (int(key), _, Global() as name):
                    kind = storage_type(name)
                case _:
                    raise ForeignFileError("a storage without a class")
            (elements,) = struct.unpack("<q", reader.read(8))
            nbytes = elements * kind.nbytes
            if not 0 <= nbytes <= reader.remaining:
                raise ForeignFileError(f"a storage of {nbytes} bytes, where {reader.remaining} are left")
            begin = where[0] + reader.position
            self._storages[key] = Storage(str(key), RangeData(self._source, begin, nbytes), kind)
            reader.skip(nbytes)
        views = self._next(reader, "storages")
        for view in views if isinstance(views, list) else []:
            match view:
                case (int(key), int(root), int(offset), int(elements)) if root in self._storages:
                    self._storages[key] = slice_of(self._storages[root], str(key), offset, elements)
                case _:
                    raise ForeignFileError("a view of a storage that is not there")
        self._at_end(reader, "storages")

    def read_tensors(self, where: _Range) -> None:
        """Read the number of tensors; for each a pickle, dimensions, sizes, strides and offset."""
        reader = self._reader(where)
        for _ in range(_count(self._next(reader, "tensors"))):
            match self._next(reader, "tensors"):
                case (int(key), int(storage_key), _) if storage_key in self._storages:
                    storage = self._storages[storage_key]
                case _:
                    raise ForeignFileError("a tensor without a storage")
            (dimensions,) = struct.unpack("<i4x", reader.read(8))
            if not 0 <= dimensions <= MAX_DIMENSIONS:
                raise ForeignFileError(f"a tensor of {dimensions} dimensions")
            numbers = struct.unpack(f"<{2 * dimensions + 1}q", reader.read(8 * (2 * dimensions + 1)))
            shape, strides, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1]
            view = view_of(storage, storage.kind, offset, shape, strides)
            self._tensors[key] = Tensor(view, tensor_leaf(view))
        self._at_end(reader, "tensors")

    def read_root(self, where: _Range) -> object:
        """Read the pickle of the content."""
        reader = self._reader(where)
        root = self._next(reader, "pickle")
        self._at_end(reader, "pickle")
        return root

    def _at_end(self, reader: ByteReader, part: str) -> None:
        if reader.remaining:
            self._pickles += read_pickles(reader, f"after {part}", self._budget)[0]
            raise ForeignFileError("bytes that belong to nothing follow").inside(part)

    def resolve(self, node: Persistent) -> Storage | Tensor:
        """Return the tensor or storage of a number, which stands as text or as itself."""
        key = node.identifier
        if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 20:
            key = int(key)
        found = (self._tensors.get(key) or self._storages.get(key)) if type(key) is int else None
        if found is None:
            raise ForeignFileError("the pickle refers to a tensor that is not there")
        return found


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_CONTAINERS:
        raise ForeignFileError("a number of storages or tensors that is none")
    return value


def _directory(source: Source) -> tuple[Mapping[str, _Range], int]:
    """Return the members of the archive by name (where their content begins, and its length), and where they end."""
    members: dict[str, _Range] = {}
    position = 0
    while position + _BLOCK_BYTES <= source.size:
        block = source.read(position, _BLOCK_BYTES)
        if not any(block):
            return members, position
        nbytes = _size(block)
        kind = block[156:157]
        begin = position + _BLOCK_BYTES
        if begin + nbytes > source.size or len(members) > MAX_MEMBERS:
            raise ForeignFileError("the tar archive is cut, or a member of it reaches beyond its end")
        name = block[:100].rstrip(b"\0").decode("utf-8", "replace").removeprefix("./")
        if kind in (b"0", b"\0"):
            if name in members:
                raise ForeignFileError(f"two members have the name {name!a:.80}")
            members[name] = begin, nbytes
        elif kind not in (b"5", b"x", b"g"):  # a directory, and facts about the next member or all
            raise ForeignFileError(f"member {name!a:.80} of the tar archive is no file")
        position = begin + -(-nbytes // _BLOCK_BYTES) * _BLOCK_BYTES
    return members, min(position, source.size)


def _begins_again(source: Source, end: int) -> int | None:
    """Return where something follows the zeros behind the members, of which there are a few KiB."""
    rest = source.read(end, min(source.size - end, _MOST_PADDING_BYTES))
    padding = len(rest) - len(rest.lstrip(b"\0"))
    return end + padding if padding < source.size - end else None


def _size(block: bytes) -> int:
    field = block[124:136]
    text = field.rstrip(b"\0 ").lstrip(b" ")
    if block[_MAGIC_OFFSET : _MAGIC_OFFSET + len(_MAGIC)] != _MAGIC or not all(byte in b"01234567" for byte in text):
        raise ForeignFileError("a header of the tar archive is malformed")
    return int(text or b"0", 8)


def _scan(source: Source, members: Mapping[str, _Range], budget: Budget) -> list[Pickled]:
    return [
        pickle
        for name, (begin, nbytes) in members.items()
        for pickle in scan_bytes(source, begin, nbytes, name, budget)
    ]


def _scan_all(source: Source, behind: int | None, budget: Budget) -> list[Pickled]:
    """Look into an archive that is refused for its structure, at every block of it and of what is behind its end."""
    found: list[Pickled] = []
    with suppress(ForeignFileError):  # the budget is spent, and the file refused anyhow
        starts = {0, source.size if behind is None else behind}
        blocks = {place for start in starts for place in range(start, start + _MOST_SCANNED_BYTES, _BLOCK_BYTES)}
        for position in sorted(place for place in blocks if place < source.size):
            found += scan_bytes(source, position, source.size - position, f"byte {position}", budget)
    return found
