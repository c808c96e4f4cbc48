"""The members of a checkpoint as files in a directory, each directly usable elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ckptfmt._core.format.index import Member
from ckptfmt._core.interop.readers.native import NativeFile, segment_chunks
from ckptfmt._core.ops.component_choice import choice_of
from ckptfmt._core.ops.members.plain_json import encode_metadata
from ckptfmt._core.ops.progress import Meter, Report
from ckptfmt._core.storage import Source, open_source
from ckptfmt._core.storage.local.publication.atomic_directory import AtomicDirectory, write_member
from ckptfmt._core.system.workers import in_order
from ckptfmt.errors import NotFoundError

__all__ = ["FACTS_NAME", "ExtractReport", "extract"]

FACTS_NAME = "+checkpoint.json"
"""The file that holds the facts about the checkpoint, and the order and codecs of its members. No member can have
this name (spec 6.1)."""


@dataclass(frozen=True)
class ExtractReport:
    """Report of an extraction.

    Attributes:
        source: The checkpoint.
        directory: The directory that was created.
        files: Names of the files in it.
        file_bytes: Their total length.
    """

    source: str
    directory: str
    files: tuple[str, ...]
    file_bytes: int

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON: `report` (`"extract/1"`), and the attributes under their names."""
        return {
            "report": "extract/1",
            "source": self.source,
            "directory": self.directory,
            "files": list(self.files),
            "file_bytes": self.file_bytes,
        }


def extract(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    names: Collection[str] = (),
    progress: Report | None = None,
) -> ExtractReport:
    """Write the members of a checkpoint to a new directory, verified and decoded, under their names.

    A `.safetensors` member becomes a file that any reader of that format accepts, a `.msgpack` member one that any
    reader of MessagePack accepts. `FACTS_NAME` holds the rest, so that `ops.members.pack.pack` rebuilds the same bytes.
    The directory appears completely or not at all.

    Args:
        source: A checkpoint in the native format.
        directory: The directory to create; it must be new or empty.
        names: Components or members to write; all if empty.
        progress: Called with the progress.

    Raises:
        NotFoundError: A name matches nothing.
        IntegrityError: A byte has changed.
        FormatError: `source` is not a valid checkpoint.
        StorageError: `source` cannot be read, or the directory is not empty or cannot be written.
    """
    with open_source(source) as opened:
        file = NativeFile(opened)
        members = _chosen(file, names)
        meter = Meter(file.path, sum(member.logical_bytes for member in members), progress)
        with AtomicDirectory(directory) as made:
            nbytes = sum(_write_member(opened, member, made.work, meter) for member in members)
            nbytes += _write_facts(file, members, made.work)
            made.commit()
    written = (FACTS_NAME, *(member.name for member in members))
    return ExtractReport(os.fspath(source), os.fspath(directory), written, nbytes)


def _chosen(file: NativeFile, names: Collection[str]) -> list[Member]:
    members = file.checkpoint.index.members
    known = {name for member in members for name in (member.name, member.component) if name is not None}
    unknown = [name for name in names if name not in known]
    if unknown:
        names = choice_of(member.component or member.name for member in members)
        raise NotFoundError(f"{file.path}: no component {unknown[0]!r}; {names}")
    return [member for member in members if not names or {member.name, member.component} & set(names)]


def _write_member(source: Source, member: Member, work: Path, meter: Meter) -> int:
    chunks = (chunk for segment in member.segments for chunk in segment_chunks(source, member, segment))
    return _write(work / member.name, in_order(lambda chunk: chunk(), chunks), meter)


def _write_facts(file: NativeFile, members: Iterable[Member], work: Path) -> int:
    document = {
        "metadata": encode_metadata(file.metadata),
        "members": [{"name": member.name, "codec": member.codec} for member in members],
    }
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _write(work / FACTS_NAME, [text.encode()], None)


def _write(path: Path, pieces: Iterable[bytes | bytearray | memoryview], meter: Meter | None) -> int:
    def metered() -> Iterator[bytes | bytearray | memoryview]:
        for piece in pieces:
            yield piece
            if meter is not None:
                meter.advance(len(piece))

    return write_member(path, metered())
