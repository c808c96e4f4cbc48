"""One component of an open checkpoint: its tree, and its tensors one by one (spec 11, 12.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from ckptfmt._core.container.adapter_set import AdapterSet
from ckptfmt._core.container.adapters import Adapter
from ckptfmt._core.container.chunk_reader import ReadRequest, fetch, normalize_truth_values
from ckptfmt._core.container.per_rank import choose, of_rank
from ckptfmt._core.container.state.unflattening import tensor_uses, unflatten
from ckptfmt._core.format.digest import digest
from ckptfmt._core.format.dtypes import BOOL
from ckptfmt._core.format.index import Member, shown_name
from ckptfmt._core.format.packing import TensorRef, encode
from ckptfmt._core.format.tensors import TensorEntry
from ckptfmt._core.format.trees import validate_tree, walk
from ckptfmt._core.format.unpacking import decode
from ckptfmt._core.storage import Source
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt.errors import CkptfmtError, FormatError, NotFoundError, error_for

__all__ = ["Component", "located", "read_member"]

_ALL = object()


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
        adapters: AdapterSet | None,
    ) -> None:
        self.name = name
        self.structure_member = structure_member
        self.tensor_member = tensor_member
        self._source = source
        self._adapters = adapters

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
        found = self._digests.get(name)
        if found is None:
            member, segment = self._segment(name)
            found = self._digests[name] = member.digests_of(segment.first_chunk, segment.chunk_count)
        return found

    def __getitem__(self, name: str) -> Any:
        """Return one tensor, verified.

        Where it is stored as it is and the framework can look at read-only memory, as NumPy can, it is a view of a map
        of the file: no copy is made, and it stays valid when the checkpoint is closed, removed or replaced. Only a
        file that is changed in place would change it; ckptfmt never does that.

        Raises:
            NotFoundError: It has no tensor of that name.
            IntegrityError: A byte of it has changed.
        """
        adapter = self._require_adapters().primary
        with located(self._source.path):
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
            fetch(self._source, [ReadRequest(member, segment)])  # by reading: the map of a file that shrinks is a trap
        return view

    def read_bytes(self, name: str) -> bytearray:
        """Return the verified data of one tensor as bytes: C order, little-endian.

        Raises:
            NotFoundError: It has no tensor of that name.
            IntegrityError: A byte of it has changed.
        """
        member, segment = self._segment(name)
        data = bytearray(segment.nbytes)
        with located(self._source.path):
            fetch(self._source, [ReadRequest(member, segment, memoryview(data))])
        return data

    def load(self, instead: Mapping[str, Any] | None = None, tree: object = _ALL) -> Any:
        """Return its tree, with every byte of it verified.

        Args:
            instead: Tensors by name that are not to be read: these take their places.
            tree: What was chosen of its `structure`, if it has one, and if not all of it is wanted: tensors that this
                does not refer to are not read.

        Raises:
            IntegrityError: A byte has changed; the message names member and tensor.
            FormatError: It is malformed.
        """
        adapters = self._require_adapters()
        given = {} if instead is None else instead
        with collector_paused(), located(self._source.path):
            if self.tensor_member is not None:
                fetch(self._source, [ReadRequest(self.tensor_member, self.tensor_member.segments[0])])
            if self.structure_member is None:
                read = [name for name in self.tensors if name not in given]
                values = dict(zip(read, self._make([(name, adapters.primary) for name in read]), strict=True))
                return {name: values[name] if name in values else given[name] for name in self.tensors}
            tree = self.structure() if tree is _ALL else tree
            uses = tensor_uses(tree, adapters, given)
            made = dict(zip(uses, self._make(uses), strict=True))
            try:
                return unflatten(tree, lambda name, by: given[name] if name in given else made[name, by], adapters)
            except FormatError as error:
                member = self.structure_member.name
                raise error_for([replace(problem, member=member) for problem in error.problems]) from error

    def load_rank(self, rank: int) -> Any:
        """Return its tree with the values of one rank where they differ between ranks; every byte is verified.

        Raises:
            MismatchError: It has values that differ, and none of that rank.
            IntegrityError: A byte has changed, be it in a value of another rank.
            FormatError: It is malformed.
        """
        if self.structure_member is None:
            return self.load()
        tree = choose(self.name, self.structure(), of_rank(rank))
        referred = {node.name for node in walk(tree) if isinstance(node, TensorRef)}
        others = [self._segment(name) for name in self.tensors if name not in referred]
        with located(self._source.path):
            fetch(self._source, [ReadRequest(member, segment) for member, segment in others])
        return self.load(tree=tree)

    @cached_property
    def _structure(self) -> object:
        member = self.structure_member
        if member is None:
            raise NotFoundError(
                f"component {shown_name(self.name)!r} of {self._source.path} is flat: it has no structure"
            )
        with located(self._source.path):
            tree = decode(bytes(read_member(self._source, member)), member=member.name)
            problems = validate_tree(tree, self.tensors, member.name)
            if problems:
                raise error_for(problems)
        return tree

    def structure(self) -> object:
        """Return the verified tree of its msgpack member, with `TensorRef` and `Typed` values as they are.

        It is read once; do not change it.

        Raises:
            FormatError: The tree is malformed (10, 11).
            NotFoundError: The component is flat, it has no tree.
        """
        return self._structure

    def _require_adapters(self) -> AdapterSet:
        if self._adapters is None:
            raise CkptfmtError("this checkpoint was opened without an adapter: use ckptfmt.open to read tensors")
        return self._adapters

    @cached_property
    def _digests(self) -> dict[str, bytes]:
        """The digests of the tensors that were asked for."""
        return {}

    def _segment(self, name: str) -> tuple[Member, Any]:
        member = self.tensor_member
        if member is None or name not in self._segments:
            close = ", ".join(list(self.tensors)[:8]) or "none"
            shown = shown_name(self.name)
            message = f"component {shown!r} of {self._source.path} has no tensor {name!r}; it has: {close}"
            raise NotFoundError(message)
        return member, self._segments[name]

    @cached_property
    def _segments(self) -> Mapping[str, Any]:
        segments = self.tensor_member.segments if self.tensor_member is not None else ()
        return {segment.tensor: segment for segment in segments if segment.tensor is not None}

    def _make(self, uses: list[tuple[str, Adapter]]) -> list[Any]:
        """Return a tensor for each (name, adapter), read in file order and verified."""
        made = []
        requests = []
        truth_values: list[memoryview] = []
        for name, adapter in uses:
            member, segment = self._segment(name)
            entry = self.tensors[name]
            tensor, memory = adapter.empty(entry.dtype, entry.shape)
            made.append(tensor)
            requests.append(ReadRequest(member, segment, memory))
            if entry.dtype == BOOL:
                truth_values.append(memory)
        requests.sort(key=lambda request: request.segment.offset)
        fetch(self._source, requests)
        for memory in truth_values:
            normalize_truth_values(memory)
        return made


def read_member(source: Source, member: Member) -> bytearray:
    """Return the verified logical bytes of a member that is one segment."""
    data = bytearray(member.logical_bytes)
    fetch(source, [ReadRequest(member, member.segments[0], memoryview(data))])
    return data


@contextmanager
def located(path: str) -> Iterator[None]:
    """Name the file in format errors that leave."""
    try:
        yield
    except FormatError as error:
        if error.path is not None:
            raise
        raise error.at(path) from error
