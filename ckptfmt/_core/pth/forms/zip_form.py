"""Zip archives of PyTorch: `torch.save` since 1.6, and `torch.jit.save`."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress

from ckptfmt._core.pth.data.archive import DEFLATED, STORED, ZIP_MAGIC, Archive, Member, read_archive
from ckptfmt._core.pth.data.byte_reader import ByteReader
from ckptfmt._core.pth.data.dtypes import STORAGES, ElementType
from ckptfmt._core.pth.data.storages import MemberData, Rework, read_member
from ckptfmt._core.pth.data.tensors import Storage
from ckptfmt._core.pth.forms.container import Container, Form, Pickled, hides_a_pickle, read_pickles, scan_reader
from ckptfmt._core.pth.limits import (
    FREE_REWORK_BYTES,
    MAX_MEMBERS,
    MAX_PICKLE_BYTES,
    MAX_SCAN_BYTES,
    MAX_UNPACKED_BYTES,
    REWORK,
)
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import Global, Persistent
from ckptfmt._core.pth.pickle.machine import Budget
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError

__all__ = ["read_zip", "storage_type"]

_ROOT = "data.pkl"
_PICKLES = (".pkl", ".pickle", ".debug_pkl", ".p", ".dill", ".joblib")
_STORAGES = ("data/", "constants/")
_MAX_TEXT_BYTES = 4 << 20
_READ_AHEAD_BYTES = 1 << 20
_KNOWN = frozenset({"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"})


def read_zip(source: Source) -> Container:
    """Return the archive that the whole of `source` is."""
    try:
        archive = read_archive(source)
    except ForeignFileError as fault:
        return Container(Form.ZIP, tuple(_scan_wreck(source)), fault)
    return _Reader(source, archive).container()


class _Reader:
    def __init__(self, source: Source, archive: Archive) -> None:
        self._source = source
        self._members = archive.members
        self._budget = Budget()
        self._rework = Rework(REWORK * source.size + FREE_REWORK_BYTES)
        self._data: dict[str, MemberData] = {}
        self._storages: dict[tuple[str, str], Storage] = {}

    def container(self) -> Container:
        scripted = "constants.pkl" in self._members or any(name.startswith("code/") for name in self._members)
        form = Form.TORCHSCRIPT if scripted else Form.ZIP
        pickles: list[Pickled] = []
        faults: list[ForeignFileError] = []
        dropped: dict[str, str] = {}
        root: object = None
        for name, member in self._members.items():
            try:
                if name.endswith(_PICKLES):
                    found, fault = self._read_pickle(name, member)
                    pickles += found
                    faults += [fault] if fault is not None else []
                    if name == _ROOT and found:
                        root = found[0].run.value
                elif not (_is_storage(name) and self._is_data(name, member, pickles)):
                    pickles += self._scan(name, member)
            except ForeignFileError as fault:
                faults.append(fault)
                with suppress(ForeignFileError):  # the budget is spent, and the file refused anyhow
                    pickles += self._scan_damaged(name, member)
            why = self._left_behind(name)
            if why is not None:
                dropped[name] = why
        if _ROOT not in self._members:
            faults.append(ForeignFileError(f"the zip archive has no {_ROOT}, so it is none of PyTorch's"))
        try:
            swapped = self._is_big_endian()
            producer = f"PyTorch, archive version {self._text('version') or 'unknown'}"
        except ForeignFileError as fault:
            faults.append(fault)
            swapped, producer = False, None
        return Container(
            form,
            tuple(pickles),
            faults[0] if faults else None,
            root,
            lambda node: self._resolve(node, swapped=swapped),
            producer,
            dropped,
            self._text,
            self._finish,
        )

    def _read_pickle(self, name: str, member: Member) -> tuple[list[Pickled], ForeignFileError | None]:
        data = read_member(self._source, member, MAX_PICKLE_BYTES)
        found, fault = read_pickles(ByteReader(data), name, self._budget)
        if name != _ROOT:
            found = [pickled.without_value() for pickled in found]
        if fault is None and len(found) > 1:
            fault = ForeignFileError("another pickle follows the first one").inside(name)
        return found, fault

    def _is_data(self, name: str, member: Member, pickles: list[Pickled]) -> bool:
        """Say whether a member is the data of a tensor; if these are a pickle that would act, note it."""
        if member.method != STORED:
            pickles += self._scan(name, member)
            return True
        hidden = hides_a_pickle(self._source, member.offset, member.nbytes, self._budget)
        if hidden is not None:
            pickles.append(Pickled(name, hidden))
        return True

    def _scan(self, name: str, member: Member) -> list[Pickled]:
        """Look whether a member that is not named as a pickle is one. Its checksum is checked if it is short."""
        if member.nbytes <= _MAX_TEXT_BYTES:
            return scan_reader(ByteReader(read_member(self._source, member, _MAX_TEXT_BYTES)), name, self._budget)
        data = MemberData(self._source, member)
        head = data.read(0, min(member.nbytes, _READ_AHEAD_BYTES))
        if bytes(head[:1]) != b"\x80":
            return scan_reader(ByteReader(bytes(head)), name, self._budget)
        whole = min(member.nbytes, MAX_SCAN_BYTES)
        return scan_reader(ByteReader(bytes(head) + bytes(data.read(len(head), whole - len(head)))), name, self._budget)

    def _scan_damaged(self, name: str, member: Member) -> list[Pickled]:
        """Look at a member that is damaged: whoever does not check it would run what is in it."""
        data = self._source.read(member.offset, min(member.stored_bytes, MAX_SCAN_BYTES))
        return scan_reader(ByteReader(_inflate(data) if member.method == DEFLATED else data), name, self._budget)

    def _left_behind(self, name: str) -> str | None:
        if name.startswith("code/"):
            return "code is never taken over"
        if name == _ROOT or _is_storage(name) or name in _KNOWN or name == "constants.pkl":
            return None
        return "it is no part of the state"

    def _is_big_endian(self) -> bool:
        order = (self._text("byteorder") or "little").strip()
        if order not in ("little", "big"):
            raise ForeignFileError(f"its byte order is {order!a:.40}; known are little and big")
        return order == "big"

    def _text(self, name: str) -> str | None:
        """Return a member as text; None if there is none."""
        member = self._members.get(name)
        if member is None:
            return None
        return read_member(self._source, member, _MAX_TEXT_BYTES).decode("utf-8", "replace").strip()

    def _resolve(self, node: Persistent, *, swapped: bool) -> Storage:
        match node.identifier:
            case ("storage" | b"storage", Global() as name, str(key), _, int(elements), *_) if elements >= 0:
                kind = storage_type(name)
            case _:
                raise ForeignFileError("the pickle refers to something outside that is no storage")
        found = self._storages.get((key, kind.name))
        if found is None:
            found = self._storages[key, kind.name] = Storage(key, self._storage_data(key), kind, swapped)
        if elements * kind.nbytes > found.data.nbytes:
            raise ForeignFileError(
                f"storage {key!a:.80} is to have {elements * kind.nbytes} bytes, its member has {found.data.nbytes}"
            )
        return found

    def _storage_data(self, key: str) -> MemberData:
        if key not in self._data:
            member = self._members.get(f"data/{key}") or self._members.get(f"constants/{key}")
            if member is None:
                raise ForeignFileError(f"the archive has no member for storage {key!a:.80}")
            self._data[key] = MemberData(self._source, member, self._rework)
        return self._data[key]

    def _finish(self) -> None:
        for data in self._data.values():
            data.finish()


def storage_type(name: Global) -> ElementType:
    """Return the element type of a class of storages.

    Raises:
        ForeignFileError: It is no such class.
    """
    module, _, word = canonical(name).rpartition(".")
    kind = STORAGES.get(word) if module in ("torch", "torch.cuda", "torch.storage") else None
    if kind is None:
        raise ForeignFileError(f"{name} is no class of storages")
    return kind


def _is_storage(name: str) -> bool:
    return name.startswith(_STORAGES) or "/data/" in name


def _scan_wreck(source: Source) -> list[Pickled]:
    """Look into a zip archive that is refused for its structure, for what it would have run: local header by header.

    Whatever the headers say of lengths, flags and checksums, each member is looked at as a pickle, packed or not.
    """
    found: list[Pickled] = []
    budget, room = Budget(), MAX_UNPACKED_BYTES
    head = source.read(0, min(source.size, MAX_SCAN_BYTES))
    at = head.find(ZIP_MAGIC)
    looked = 0
    while at >= 0 and looked < MAX_MEMBERS and at + 30 <= len(head) and not budget.spent and room > 0:
        name_bytes = int.from_bytes(head[at + 26 : at + 28], "little")
        extra_bytes = int.from_bytes(head[at + 28 : at + 30], "little")
        method = int.from_bytes(head[at + 8 : at + 10], "little")
        name = head[at + 30 : at + 30 + name_bytes].decode("utf-8", "replace")[:200]
        begin = at + 30 + name_bytes + extra_bytes
        at = head.find(ZIP_MAGIC, at + 4)
        end = at if at >= 0 else len(head)
        looked += 1
        for unpack in (_inflate, _as_is) if method == DEFLATED else (_as_is, _inflate):
            data = unpack(head[begin:end])
            room -= len(data)
            with suppress(ForeignFileError):  # the budget is spent, and the file refused anyhow
                pickled = scan_reader(ByteReader(data), name, budget)
                found += pickled
                if pickled:
                    break
    return found


_Unpack = Callable[[bytes], bytes]


def _as_is(data: bytes) -> bytes:
    return data


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _READ_AHEAD_BYTES)
    except zlib.error:
        return b""
