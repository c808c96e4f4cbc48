"""A copy of a checkpoint without some of its components: members are copied as they are stored, none is decoded."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial

from ckptfmt._core.container.planning import ByteSource, StoredMember
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import write_file
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.digest import DIGEST_BYTES, digest
from ckptfmt._core.format.index import Member, Metadata
from ckptfmt._core.format.layout import MEMBER_ALIGNMENT, align, require_known_version
from ckptfmt._core.format.planes import WHOLE
from ckptfmt._core.ops.component_choice import choice_of
from ckptfmt._core.ops.progress import Report, Tally
from ckptfmt._core.storage import Source, create, open_source
from ckptfmt._core.storage.resolve import same_object
from ckptfmt._version import __version__
from ckptfmt.errors import NotFoundError, Problem, StorageError, error_for

__all__ = ["StripReport", "strip_file"]


@dataclass(frozen=True)
class StripReport:
    """Report of a strip.

    Attributes:
        source: The file that was read.
        path: The file that was written.
        identity: Its identity (spec 12.1).
        file_bytes: Its length.
        source_bytes: Length of the file that was read.
        kept: Names of its components, and of its members that belong to none.
        dropped: Names of those that were left out.
    """

    source: str
    path: str
    identity: str
    file_bytes: int
    source_bytes: int
    kept: tuple[str, ...]
    dropped: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON: `report` (`"strip/1"`), and the attributes under their names."""
        return {
            "report": "strip/1",
            "source": self.source,
            "path": self.path,
            "identity": self.identity,
            "file_bytes": self.file_bytes,
            "source_bytes": self.source_bytes,
            "kept": list(self.kept),
            "dropped": list(self.dropped),
        }


def strip_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    drop: Collection[str] = (),
    keep: Collection[str] = (),
    notes: bool = True,
    progress: Report | None = None,
) -> StripReport:
    """Write a copy of a checkpoint without some of its components.

    What stays is copied byte for byte, codec and order included (spec 6.5), and each chunk is verified on the way. The
    new file belongs to no run, so that training never resumes from it; the identity of the source is its parent.

    Args:
        source: A checkpoint in the native format.
        target: The file to write.
        drop: Names of components, or of members that belong to none, to leave out.
        keep: Names to keep; all others are left out. Give one of the two.
        notes: Whether to keep the user's notes.
        progress: Called with the progress.

    Raises:
        NotFoundError: A name matches nothing.
        IntegrityError: A byte of what stays has changed; nothing is written.
        FormatError: `source` is not a valid checkpoint, or is of a newer version, so that a copy would lose something.
        StorageError: `source` cannot be read or `target` cannot be written.
    """
    with open_source(source) as file:
        checkpoint = Checkpoint(file)
        require_known_version(checkpoint.version, checkpoint.path)
        names = [_owner(member) for member in checkpoint.index.members]
        dropped = _dropped(file.path, list(dict.fromkeys(names)), drop, keep)
        members = [member for member, name in zip(checkpoint.index.members, names, strict=True) if name not in dropped]
        if same_object(source, target):
            raise StorageError(f"{os.fspath(target)}: source and target are the same file; choose another target")
        metadata = _metadata(checkpoint, notes=notes)
        tally = Tally(sum(member.stored_bytes for member in members), progress)
        expected = sum(align(member.stored_bytes, MEMBER_ALIGNMENT) for member in members) + MEMBER_ALIGNMENT
        with create(target, expected_bytes=expected) as out:
            written = write_file(out, [_stored(file, member, tally) for member in members], metadata)
            out.commit(written_bytes=written.file_bytes)
    return StripReport(
        source=file.path,
        path=os.fspath(target),
        identity=written.identity,
        file_bytes=written.file_bytes,
        source_bytes=file.size,
        kept=tuple(dict.fromkeys(name for name in names if name not in dropped)),
        dropped=tuple(dict.fromkeys(name for name in names if name in dropped)),
    )


def _owner(member: Member) -> str:
    return member.name if member.component is None else member.component


def _dropped(path: str, names: list[str], drop: Collection[str], keep: Collection[str]) -> set[str]:
    unknown = [name for name in (*drop, *keep) if name not in names]
    if unknown:
        raise NotFoundError(f"{path}: no component {unknown[0]!r}; {choice_of(names)}")
    return {name for name in names if name in drop or (keep and name not in keep)}


def _metadata(checkpoint: Checkpoint, *, notes: bool) -> Metadata:
    facts = checkpoint.metadata
    return replace(
        facts,
        run_id=None,
        parent=bytes.fromhex(checkpoint.identity),
        producer=f"ckptfmt {__version__}",
        user=facts.user if notes else None,
    )


def _stored(source: Source, member: Member, tally: Tally) -> StoredMember:
    """Return the plan to copy a member; each run is verified when it is read."""

    def read(run: _Run) -> bytes:
        data = _read(source, run)
        tally.add(source.path, run.nbytes)
        return data

    return StoredMember(member, (ByteSource(run.nbytes, WHOLE, partial(read, run)) for run in _runs(member)))


@dataclass(frozen=True)
class _Run:
    """Neighbouring chunks of a member that are copied together.

    Attributes:
        member: The member, as it lies in the source.
        start: First stored byte, counted from the member's start.
        chunks: Of each chunk, its number and stored length.
    """

    member: Member
    start: int
    chunks: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        """Stored length in bytes."""
        return sum(size for _, size in self.chunks)


def _runs(member: Member) -> Iterator[_Run]:
    """Yield all stored bytes of a member in runs of about the length of a chunk."""
    sizes = member.stored_chunk_bytes or tuple(chunk.nbytes for chunk in member.chunks())
    run: list[tuple[int, int]] = []
    start = nbytes = 0
    for number, size in enumerate(sizes):
        if run and nbytes + size > CHUNK_BYTES:
            yield _Run(member, start, tuple(run))
            run, start, nbytes = [], start + nbytes, 0
        run.append((number, size))
        nbytes += size
    if run:
        yield _Run(member, start, tuple(run))


def _read(source: Source, run: _Run) -> bytes:
    """Return the stored bytes of a run, verified."""
    member = run.member
    data = source.read(member.offset + run.start, run.nbytes)
    digests = member.digests if member.stored_digests is None else member.stored_digests
    code = "chunk-digest" if member.stored_digests is None else "stored-digest"
    position = 0
    for number, size in run.chunks:
        expected = digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
        if digest(memoryview(data)[position : position + size]) != expected:
            offset = member.offset + run.start + position
            tensor = next((chunk.segment.tensor for chunk in member.chunks() if chunk.number == number), None)
            message = f"{size} bytes are not what was written"
            raise error_for(Problem(code, message, member=member.name, tensor=tensor, offset=offset), source.path)
        position += size
    return data
