"""Opening a checkpoint: its index at once, its tensors one by one or all together, verified (spec 14)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from ckptfmt._core.container.adapter_set import AdapterSet
from ckptfmt._core.container.chunk_reader import NewBuffer, ReadRequest, ReadTarget, fetch, new_buffer
from ckptfmt._core.container.component import Component, located, read_member
from ckptfmt._core.format.index import ROOT, Index, Member, Metadata
from ckptfmt._core.format.layout import (
    PREAMBLE_BYTES,
    TRAILER_BYTES,
    check_digest,
    check_head,
    parse_preamble,
    parse_trailer,
)
from ckptfmt._core.format.parsing import parse_index
from ckptfmt._core.storage.base import Source
from ckptfmt._core.storage.resolve import open_source
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt.errors import FormatError, NotFoundError, Problem, error_for

_TAIL_BYTES = 64 << 10  # one read of this size holds the whole index of most files


class Checkpoint(Mapping[str, Component]):
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

    def __init__(self, source: Source, adapters: AdapterSet | None = None) -> None:
        self.path = source.path
        self.file_bytes = source.size
        self._source = source
        self._adapters = adapters
        with located(self.path):
            self._read_index()

    @classmethod
    def open(cls, path: str | os.PathLike[str], adapters: AdapterSet | None = None) -> Self:
        """Open a file.

        Args:
            path: The file: a path, or the URL of an object in a store.
            adapters: Make the tensors; without them, only bytes and facts can be had.

        Raises:
            FormatError: It is not a valid ckptfmt file, or of a newer version.
            StorageError: It cannot be read.
        """
        source = open_source(path)
        try:
            return cls(source, adapters)
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
            name: Component(self._source, name, kinds.get("msgpack"), kinds.get("safetensors"), self._adapters)
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
            found = ", ".join(name for name in self._components if name != ROOT) or "none"
            message = f"{self.path} has no component {name!r}; it has: {found}"
            raise NotFoundError(message) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        return len(self._components)

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path!r}: {', '.join(self._components)}>"

    def load(self, rank: int | None = None) -> Any:
        """Return the whole state, after verifying every byte of the file.

        Args:
            rank: Of values that differ between ranks, return those of this rank. None: return a `PerRank` of all.

        Raises:
            MismatchError: There are values that differ, and none of that rank.
            IntegrityError: A byte has changed; the message names member and tensor.
            FormatError: A component is malformed.
            StorageError: The file cannot be read.
        """
        with located(self.path):
            problems = self._check_padding()
            if problems:
                raise error_for(problems)
            for member in self.opaque_members:
                fetch(self._source, _all_of(member))
            state = {
                name: component.load() if rank is None else component.load_rank(rank)
                for name, component in self.items()
            }
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
        targets: Mapping[str, Mapping[str, ReadTarget]],
        *,
        progress: Callable[[int], None] | None = None,
        make_buffer: NewBuffer = new_buffer,
    ) -> tuple[Problem, ...]:
        """Read components and verify every byte of them; the data of tensors go straight to where they belong.

        Args:
            targets: For each component, the target of each tensor that has one (see `chunk_reader.ReadTarget`).
                Memory is written to before its content is verified: if there are problems, do not use its content.
            progress: Called with the number of logical bytes read since its last call.
            make_buffer: Makes the memory that targets which are functions are given views of.

        Returns:
            Every problem; none means that all of it is what the writer wrote.

        Raises:
            StorageError: The file cannot be read.
        """
        problems: list[Problem] = []
        chosen = [member for member in self.index.members if member.component in targets]
        requests = (request for member in chosen for request in _all_of(member, targets[str(member.component)]))
        fetch(self._source, requests, problems=problems, progress=progress, make_buffer=make_buffer)
        return tuple(problems)

    def read_opaque(self, name: str) -> bytes:
        """Return the verified bytes of an opaque member.

        Raises:
            NotFoundError: No opaque member has that name.
            IntegrityError: A byte has changed.
        """
        for member in self.index.members:
            if member.name == name and member.kind == "opaque":
                with located(self.path):
                    return bytes(read_member(self._source, member))
        raise NotFoundError(f"{self.path} has no opaque member {name!r}")

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


def _all_of(member: Member, targets: Mapping[str, ReadTarget] | None = None) -> Iterator[ReadRequest]:
    targets = {} if targets is None else targets
    for segment in member.segments:
        yield ReadRequest(member, segment, None if segment.tensor is None else targets.get(segment.tensor))


def _padding_problem(offset: int) -> Problem:
    return Problem("padding", "a padding byte is not zero", offset=offset)
