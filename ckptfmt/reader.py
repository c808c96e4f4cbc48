"""Opening a checkpoint: its index at once, its tensors one by one or all together, verified (spec 14)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from ckptfmt.collector import collector_paused
from ckptfmt.errors import CkptfmtError, FormatError, Problem, TensorNotFoundError, error_for
from ckptfmt.fetching import Into, NewBuffer, Want, fetch, new_buffer, normalize_truth_values
from ckptfmt.format.digest import digest
from ckptfmt.format.index import ROOT, Index, Member, Metadata
from ckptfmt.format.layout import (
    PREAMBLE_BYTES,
    TRAILER_BYTES,
    check_digest,
    check_head,
    parse_preamble,
    parse_trailer,
)
from ckptfmt.format.packing import encode
from ckptfmt.format.parsing import parse_index
from ckptfmt.format.tensors import BOOL, TensorEntry
from ckptfmt.format.trees import validate_tree
from ckptfmt.format.unpacking import decode
from ckptfmt.state import Adapter, tensor_uses, unflatten
from ckptfmt.storage import Source, open_source

_TAIL_BYTES = 64 << 10  # one read of this size holds the whole index of most files


class Checkpoint(Mapping[str, "Component"]):
    """An open checkpoint: a mapping of component names to components, in file order.

    Only the index has been read. It is a context manager; `close` releases the file.

    Attributes:
        path: The file.
        file_bytes: Its length in bytes.
        identity: Its identity, 64 hex digits (12.1).
        version: Format version as (major, minor).
        index: The whole index.
        index_bytes: Length of the index in bytes.
    """

    def __init__(self, source: Source, adapter: Adapter | None = None) -> None:
        self.path = source.path
        self.file_bytes = source.size
        self._source = source
        self._adapter = adapter
        with _located(self.path):
            self._read_index()

    @classmethod
    def open(cls, path: str | os.PathLike[str], adapter: Adapter | None = None) -> Self:
        """Open a file.

        Args:
            path: The file.
            adapter: Makes the tensors; without one, only bytes and facts can be had.

        Raises:
            FormatError: It is not a valid ckptfmt file, or of a newer version.
            StorageError: It cannot be read.
        """
        source = open_source(path)
        try:
            return cls(source, adapter)
        except BaseException:
            source.close()
            raise

    def _read_index(self) -> None:
        size = self.file_bytes
        head = self._source.read(0, min(size, PREAMBLE_BYTES))
        check_head(head, size)
        tail_start = max(0, size - _TAIL_BYTES)
        tail = self._source.read(tail_start, size - tail_start)
        trailer_bytes = tail[-TRAILER_BYTES:]
        trailer = parse_trailer(trailer_bytes, size)
        start = trailer.index_offset - tail_start
        if start >= 0:
            padded = tail[start:-TRAILER_BYTES]
        else:
            padded = self._source.read(trailer.index_offset, size - TRAILER_BYTES - trailer.index_offset)
        data = padded[: trailer.index_bytes]
        check_digest(head, data, trailer_bytes)
        self.version = parse_preamble(head)
        with collector_paused():
            self.index: Index = parse_index(data, minor=self.version[1], index_offset=trailer.index_offset)
        self.index_bytes = trailer.index_bytes
        self.identity = trailer.digest.hex()
        self._trailer = trailer
        if any(padded[trailer.index_bytes :]):
            raise error_for(_padding_problem(trailer.index_offset + trailer.index_bytes))

    @property
    def metadata(self) -> Metadata:
        """Facts about the checkpoint."""
        return self.index.metadata

    @cached_property
    def _components(self) -> dict[str, Component]:
        members: dict[str, dict[str, Member]] = {}
        for member in self.index.members:
            if member.component is not None:
                members.setdefault(member.component, {})[member.kind] = member
        return {
            name: Component(self._source, name, kinds.get("msgpack"), kinds.get("safetensors"), self._adapter)
            for name, kinds in members.items()
        }

    @property
    def opaque_members(self) -> tuple[Member, ...]:
        """The members that belong to no component (6.3)."""
        return tuple(member for member in self.index.members if member.kind == "opaque")

    def __getitem__(self, name: str) -> Component:
        try:
            return self._components[name]
        except KeyError:
            found = ", ".join(self._components) or "none"
            message = f"{self.path} has no component {name!r}; it has: {found}"
            raise TensorNotFoundError(message) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path!r}: {', '.join(self._components)}>"

    def load(self) -> Any:
        """Return the whole state, after verifying every byte of the file.

        Raises:
            IntegrityError: A byte has changed; the message names member and tensor.
            FormatError: A component is malformed.
            StorageError: The file cannot be read.
        """
        with _located(self.path):
            problems = self._check_padding()
            if problems:
                raise error_for(problems)
            for member in self.opaque_members:
                fetch(self._source, _all_of(member))
            state = {name: component.load() for name, component in self.items()}
        return state.get(ROOT, state)

    def verify(self, progress: Callable[[int], None] | None = None) -> tuple[Problem, ...]:
        """Check every byte of the file and return every problem; none means that the file is sound.

        Args:
            progress: Called with the number of logical bytes checked since its last call.

        Raises:
            StorageError: The file cannot be read.
        """
        problems = self._check_padding()
        for member in self.index.members:
            found: list[Problem] = []
            fetch(self._source, _all_of(member), problems=found, progress=progress)
            if member.kind == "msgpack" and not found and member.component is not None:
                try:
                    self[member.component].structure()
                except FormatError as error:
                    found += error.problems
            problems += found
        return tuple(problems)

    def fill(
        self,
        targets: Mapping[str, Mapping[str, Into]],
        *,
        progress: Callable[[int], None] | None = None,
        make_buffer: NewBuffer = new_buffer,
    ) -> tuple[Problem, ...]:
        """Read components and verify every byte of them; the data of tensors go straight to where they belong.

        Args:
            targets: For each component, the target of each tensor that has one (see `ckptfmt.fetching.Into`). Memory
                is written to before its content is verified: with problems, what is in there is not to be used.
            progress: Called with the number of logical bytes read since its last call.
            make_buffer: Makes the memory that targets which are functions are given views of.

        Returns:
            Every problem; none means that all of it is what the writer wrote.

        Raises:
            StorageError: The file cannot be read.
        """
        problems: list[Problem] = []
        chosen = [member for member in self.index.members if member.component in targets]
        wants = (want for member in chosen for want in _all_of(member, targets[str(member.component)]))
        fetch(self._source, wants, problems=problems, progress=progress, make_buffer=make_buffer)
        return tuple(problems)

    def read_opaque(self, name: str) -> bytes:
        """Return the verified bytes of an opaque member.

        Raises:
            TensorNotFoundError: There is none of that name.
            IntegrityError: A byte has changed.
        """
        for member in self.index.members:
            if member.name == name and member.kind == "opaque":
                with _located(self.path):
                    return bytes(_read_member(self._source, member))
        raise TensorNotFoundError(f"{self.path} has no opaque member {name!r}")

    def _check_padding(self) -> list[Problem]:
        """Return a problem for each padding that is not zero (2.2)."""
        ends = [PREAMBLE_BYTES, *(member.offset + member.stored_bytes for member in self.index.members)]
        starts = [*(member.offset for member in self.index.members), self._trailer.index_offset]
        gaps = zip(ends, starts, strict=True)
        return [_padding_problem(end) for end, start in gaps if any(self._source.read(end, start - end))]

    def close(self) -> None:
        """Release the file. Tensors that were read stay valid."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Component:
    """One component of an open checkpoint; nothing of it is read until it is asked for.

    Attributes:
        name: Its name.
        structure_member: Its msgpack member, if it has one.
        tensor_member: Its safetensors member, if it has one.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        structure_member: Member | None,
        tensor_member: Member | None,
        adapter: Adapter | None,
    ) -> None:
        self.name = name
        self.structure_member = structure_member
        self.tensor_member = tensor_member
        self._source = source
        self._adapter = adapter

    @property
    def members(self) -> tuple[Member, ...]:
        """Its one or two members, in file order."""
        return tuple(member for member in (self.structure_member, self.tensor_member) if member is not None)

    @property
    def flat(self) -> bool:
        """Whether it is a mapping of names to tensors and nothing else (11.1)."""
        return self.structure_member is None

    @property
    def codec(self) -> str:
        """Codec of its members; several names joined with `+` if they differ."""
        return "+".join(sorted({member.codec for member in self.members}))

    @property
    def logical_bytes(self) -> int:
        """Length of its members in bytes, after decoding."""
        return sum(member.logical_bytes for member in self.members)

    @property
    def stored_bytes(self) -> int:
        """Length of its members in bytes, as stored."""
        return sum(member.stored_bytes for member in self.members)

    @cached_property
    def tensors(self) -> Mapping[str, TensorEntry]:
        """Its tensors by name, in the order of the header."""
        header = self.tensor_member.parsed_header if self.tensor_member is not None else None
        return {} if header is None else {tensor.name: tensor for tensor in header.tensors}

    @property
    def text_metadata(self) -> Mapping[str, str]:
        """The `__metadata__` of its safetensors member."""
        header = self.tensor_member.parsed_header if self.tensor_member is not None else None
        return {} if header is None else header.text_metadata

    @cached_property
    def identity(self) -> str:
        """Its identity, 64 hex digits: the same wherever the same content is stored (12.2)."""
        structure = None if self.structure_member is None else self.structure_member.digests
        tensors = [
            [name, entry.dtype, list(entry.shape), self.tensor_digests(name)]
            for name, entry in sorted(self.tensors.items(), key=lambda item: item[0].encode())
        ]
        return digest(encode([structure, tensors])).hex()

    def tensor_digests(self, name: str) -> bytes:
        """Return the chunk digests of a tensor, one after the other: equal for equal data."""
        member, segment = self._segment(name)
        first, count = segment.first_chunk, segment.chunk_count
        return b"".join(member.chunk_digest(number) for number in range(first, first + count))

    def __getitem__(self, name: str) -> Any:
        """Return one tensor, verified.

        Where it is stored as it is and the framework can look at read-only memory, as NumPy can, it is a view of a map
        of the file: no copy is made, and it stays valid when the checkpoint is closed, removed or replaced. Only a
        file that is changed in place, which nothing of ours does, would change it.

        Raises:
            TensorNotFoundError: It has no tensor of that name.
            IntegrityError: A byte of it has changed.
        """
        adapter = self._require_adapter()
        with _located(self._source.path):
            view = self._view(name, adapter)
            return self._make([(name, adapter)])[0] if view is None else view

    def _view(self, name: str, adapter: Adapter) -> Any | None:
        """Return a tensor as a view of the file, verified; None if it cannot be had so."""
        member, segment = self._segment(name)
        if member.codec != "none" or not segment.nbytes or self.tensors[name].dtype == BOOL:
            return None  # other bytes than 0 and 1 may have to be changed (9.8)
        memory = self._source.view(member.offset + segment.offset, segment.nbytes)
        entry = self.tensors[name]
        view = None if memory is None else adapter.view(entry.dtype, entry.shape, memory)
        if view is not None:
            fetch(self._source, [Want(member, segment)])  # by reading: the map of a file that shrinks is a trap
        return view

    def read_bytes(self, name: str) -> bytearray:
        """Return the verified data of one tensor as bytes: C order, little-endian.

        Raises:
            TensorNotFoundError: It has no tensor of that name.
            IntegrityError: A byte of it has changed.
        """
        member, segment = self._segment(name)
        data = bytearray(segment.nbytes)
        with _located(self._source.path):
            fetch(self._source, [Want(member, segment, memoryview(data))])
        return data

    def load(self, instead: Mapping[str, Any] | None = None) -> Any:
        """Return its tree, with every byte of it verified.

        Args:
            instead: Tensors by name that are not to be read: these take their places.

        Raises:
            IntegrityError: A byte has changed; the message names member and tensor.
            FormatError: It is malformed.
        """
        adapter = self._require_adapter()
        given = {} if instead is None else instead
        with _located(self._source.path):
            if self.tensor_member is not None:
                fetch(self._source, [Want(self.tensor_member, self.tensor_member.segments[0])])
            if self.structure_member is None:
                read = [name for name in self.tensors if name not in given]
                values = dict(zip(read, self._make([(name, adapter) for name in read]), strict=True))
                return {name: values[name] if name in values else given[name] for name in self.tensors}
            tree = self.structure()
            uses = [use for use in tensor_uses(tree, adapter) if use[0] not in given]
            made = dict(zip(uses, self._make(uses), strict=True))
            try:
                return unflatten(tree, lambda name, by: given[name] if name in given else made[name, by], adapter)
            except FormatError as error:
                member = self.structure_member.name
                raise error_for([replace(problem, member=member) for problem in error.problems]) from error

    @cached_property
    def _structure(self) -> object:
        member = self.structure_member
        if member is None:
            raise TensorNotFoundError(f"component {self.name!r} of {self._source.path} is flat: it has no structure")
        with _located(self._source.path):
            tree = decode(bytes(_read_member(self._source, member)), member=member.name)
            problems = validate_tree(tree, self.tensors, member.name)
            if problems:
                raise error_for(problems)
        return tree

    def structure(self) -> object:
        """Return the verified tree of its msgpack member, with `TensorRef` and `Typed` values as they are.

        It is read once; do not change it.

        Raises:
            FormatError: The tree is malformed (10, 11).
            TensorNotFoundError: The component is flat, it has no tree.
        """
        return self._structure

    def _require_adapter(self) -> Adapter:
        if self._adapter is None:
            raise CkptfmtError("this checkpoint was opened without an adapter: use ckptfmt.open to read tensors")
        return self._adapter

    def _segment(self, name: str) -> tuple[Member, Any]:
        member = self.tensor_member
        if member is None or name not in self._segments:
            close = ", ".join(list(self.tensors)[:8]) or "none"
            message = f"component {self.name!r} of {self._source.path} has no tensor {name!r}; it has: {close}"
            raise TensorNotFoundError(message)
        return member, self._segments[name]

    @cached_property
    def _segments(self) -> Mapping[str, Any]:
        segments = self.tensor_member.segments if self.tensor_member is not None else ()
        return {segment.tensor: segment for segment in segments if segment.tensor is not None}

    def _make(self, uses: list[tuple[str, Adapter]]) -> list[Any]:
        """Return a tensor for each (name, adapter), read in file order and verified."""
        made = []
        wants = []
        truth_values: list[memoryview] = []
        for name, adapter in uses:
            member, segment = self._segment(name)
            entry = self.tensors[name]
            tensor, memory = adapter.empty(entry.dtype, entry.shape)
            made.append(tensor)
            wants.append(Want(member, segment, memory))
            if entry.dtype == BOOL:
                truth_values.append(memory)
        wants.sort(key=lambda want: want.segment.offset)
        fetch(self._source, wants)
        for memory in truth_values:
            normalize_truth_values(memory)
        return made


def _all_of(member: Member, targets: Mapping[str, Into] | None = None) -> Iterator[Want]:
    into = {} if targets is None else targets
    for segment in member.segments:
        yield Want(member, segment, None if segment.tensor is None else into.get(segment.tensor))


def _read_member(source: Source, member: Member) -> bytearray:
    """Return the verified logical bytes of a member that is one segment."""
    data = bytearray(member.logical_bytes)
    fetch(source, [Want(member, member.segments[0], memoryview(data))])
    return data


def _padding_problem(offset: int) -> Problem:
    return Problem("padding", "a padding byte is not zero", offset=offset)


@contextmanager
def _located(path: str) -> Iterator[None]:
    """Name the file in format errors that leave."""
    try:
        yield
    except FormatError as error:
        if error.path is not None:
            raise
        raise error.at(path) from error
