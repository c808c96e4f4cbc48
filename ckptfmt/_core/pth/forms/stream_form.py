"""The form of `torch.save` before 1.6: five pickles and then the storages; and plain pickles."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ckptfmt._core.pth.data.byte_reader import ByteReader
from ckptfmt._core.pth.data.dtypes import ElementType
from ckptfmt._core.pth.data.storages import RangeData
from ckptfmt._core.pth.data.tensors import Storage
from ckptfmt._core.pth.forms.container import Container, Form, Pickled, hides_a_pickle, read_pickles
from ckptfmt._core.pth.forms.zip_form import storage_type
from ckptfmt._core.pth.nodes import DictNode, Global, Persistent
from ckptfmt._core.pth.pickle.machine import Budget
from ckptfmt._core.pth.pickle.pickle_vm import run_pickle
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError

__all__ = ["MAGIC_NUMBER", "read_stream", "slice_of"]

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_SLOTS = ("magic number", "protocol version", "system information", "content", "keys of the storages")


def read_stream(source: Source) -> Container:
    """Return the file that begins with a pickle."""
    reader = ByteReader(source=source, end=source.size)
    budget = Budget()
    first = run_pickle(reader, budget)
    if first.value != MAGIC_NUMBER or isinstance(first.value, float):
        return _plain(reader, Pickled("", first), budget)
    pickles = [Pickled(_SLOTS[0], first)]
    for slot in _SLOTS[1:]:
        run = run_pickle(reader, budget)
        pickles.append(Pickled(slot, run))
        if run.error is not None:
            return Container(Form.STREAM, tuple(pickles), run.error.inside(slot))
    _, version, information, content, keys = (pickle.run for pickle in pickles)
    try:
        if version.value != _PROTOCOL:
            raise ForeignFileError(f"its protocol version is no {_PROTOCOL}")
        reader_of_storages = _Storages(source, content.outside, budget)
        end = reader_of_storages.read(reader.position, keys.value, pickles)
    except ForeignFileError as error:
        return Container(Form.STREAM, tuple(pickles), error)
    fault: ForeignFileError | None = None
    if end < source.size:
        fault = ForeignFileError(f"{source.size - end} bytes that belong to nothing follow the storages")
        pickles += read_pickles(ByteReader(source=source, start=end, end=source.size), "after the storages", budget)[0]
    return Container(
        Form.STREAM, tuple(pickles), fault, content.value, reader_of_storages.resolve, _producer(information.value)
    )


def _plain(reader: ByteReader, first: Pickled, budget: Budget) -> Container:
    """Return a file that is a pickle, and what follows it."""
    if first.run.error is not None:
        return Container(Form.PICKLE, (first,), first.run.error)
    more, fault = read_pickles(reader, "", budget, already=1)
    if more and fault is None:
        fault = ForeignFileError("another pickle follows the first one")
    if first.run.outside and fault is None:
        fault = ForeignFileError("the pickle refers to storages, and the file has none")
    return Container(Form.PICKLE, (first, *more), fault, first.run.value)


@dataclass(frozen=True)
class _Expected:
    kind: ElementType
    elements: int


class _Storages:
    """The storages behind the pickles, in the order of the keys: the number of elements, then these."""

    def __init__(self, source: Source, outside: tuple[Persistent, ...], budget: Budget) -> None:
        self._source = source
        self._outside = outside
        self._budget = budget
        self._found: dict[str, Storage] = {}
        self._views: dict[tuple[str, str], Storage] = {}

    def read(self, position: int, keys: object, pickles: list[Pickled]) -> int:
        """Find the storages; return where they end."""
        expected = self._expected()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ForeignFileError("the keys of its storages are no list of text")
        for key in keys:
            wanted = expected.get(key)
            if wanted is None or key in self._found:
                raise ForeignFileError(f"it has a storage {key!a:.80} that nothing refers to, or twice")
            if position + 8 > self._source.size:
                raise ForeignFileError(f"it ends before storage {key!a:.80}")
            (elements,) = struct.unpack("<q", self._source.read(position, 8))
            position += 8
            nbytes = wanted.elements * wanted.kind.nbytes
            if elements != wanted.elements:
                raise ForeignFileError(
                    f"storage {key!a:.80} has {elements} elements, its tensors say {wanted.elements}"
                )
            if position + nbytes > self._source.size:
                raise ForeignFileError(f"it ends in the middle of storage {key!a:.80}")
            hidden = hides_a_pickle(self._source, position, nbytes, self._budget)
            if hidden is not None:
                pickles.append(Pickled(f"storage {key!a:.80}", hidden))
            self._found[key] = Storage(key, RangeData(self._source, position, nbytes), wanted.kind)
            position += nbytes
        return position

    def _expected(self) -> Mapping[str, _Expected]:
        expected: dict[str, _Expected] = {}
        for node in self._outside:
            match node.identifier:
                case ("storage" | b"storage", Global() as name, str(key), _, int(elements), *_) if elements >= 0:
                    expected.setdefault(key, _Expected(storage_type(name), elements))
                case _:
                    raise ForeignFileError("the pickle refers to something outside that is no storage")
        return expected

    def resolve(self, node: Persistent) -> Storage:
        """Return a storage, or the part of one that older versions knew as a view."""
        match node.identifier:
            case (_, _, str(key), _, _) | (_, _, str(key), _, _, None):
                return self._storage(key)
            case (_, _, str(key), _, _, (str(view), int(offset), int(elements))):
                found = self._views.get((key, view))
                if found is None:
                    found = self._views[key, view] = slice_of(self._storage(key), view, offset, elements)
                return found
        raise ForeignFileError("the pickle refers to a view of a storage that is none")

    def _storage(self, key: str) -> Storage:
        found = self._found.get(key)
        if found is None:
            raise ForeignFileError(f"the file has no data of storage {key!a:.80}")
        return found


def slice_of(storage: Storage, key: str, offset: int, elements: int) -> Storage:
    """Return a part of a storage that lies in the file as it is.

    Raises:
        ForeignFileError: It is not inside the storage.
    """
    begin, nbytes = offset * storage.kind.nbytes, elements * storage.kind.nbytes
    data = storage.data
    if not isinstance(data, RangeData) or begin < 0 or nbytes < 0 or begin + nbytes > data.nbytes:
        raise ForeignFileError(f"a view {key!a:.80} that is not inside its storage")
    return Storage(key, data.part(begin, nbytes), storage.kind, storage.swapped)


def _producer(information: object) -> str:
    facts = (
        dict(pair for pair in information.entries if isinstance(pair[0], str))
        if isinstance(information, DictNode)
        else {}
    )
    order = {True: ", little-endian", False: ", big-endian"}.get(facts.get("little_endian"), "")  # type: ignore[call-overload]  # None is there for all others
    return f"PyTorch, stream protocol {_PROTOCOL}{order}"
