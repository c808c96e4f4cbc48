"""Files in a directory as the members of a checkpoint: the way back from `ops.members.extract`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ckptfmt._core.container.planning import ByteSource, MemberPlan, SavePlan, fixed_part
from ckptfmt._core.container.writer import SaveReport, write_plan
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.index import CODECS, MSGPACK, ROOT, SAFETENSORS, Metadata, component_of, is_reserved
from ckptfmt._core.format.layout import MAX_MSGPACK_BYTES
from ckptfmt._core.format.parsing import validate_metadata, validate_names
from ckptfmt._core.format.planes import WHOLE
from ckptfmt._core.format.tensors import Header, plan_header
from ckptfmt._core.format.trees import validate_tree
from ckptfmt._core.format.unpacking import decode
from ckptfmt._core.interop.base import ComponentSource
from ckptfmt._core.interop.readers.safetensors import SafetensorsFile
from ckptfmt._core.ops.conversion.transcode import tensor_bytes
from ckptfmt._core.ops.members.extract import FACTS_NAME
from ckptfmt._core.ops.members.plain_json import decode_metadata
from ckptfmt._core.ops.progress import Meter, Report
from ckptfmt._core.storage import Source, open_source
from ckptfmt._core.storage.local.paths import children, is_directory, leads_out_of, real_path
from ckptfmt._core.storage.resolve import look
from ckptfmt._version import __version__
from ckptfmt.errors import FormatError, PackError, StateError, error_for

__all__ = ["PackReport", "pack"]

_MAX_FACTS_BYTES = 16 << 20


@dataclass(frozen=True)
class PackReport:
    """Report of a pack.

    Attributes:
        directory: The directory that was read.
        path: The checkpoint.
        identity: Its identity (spec 12.1).
        file_bytes: Its length.
        members: Names of its members, in file order.
    """

    directory: str
    path: str
    identity: str
    file_bytes: int
    members: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON: `report` (`"pack/1"`), and the attributes under their names."""
        return {
            "report": "pack/1",
            "directory": self.directory,
            "path": self.path,
            "identity": self.identity,
            "file_bytes": self.file_bytes,
            "members": list(self.members),
        }


def pack(
    directory: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    codec: str | None = None,
    progress: Report | None = None,
) -> PackReport:
    """Write a checkpoint whose members are the files directly in a directory.

    Order, codecs and facts come from `FACTS_NAME` for the files that it lists; other files follow by name. Files that
    `extract` wrote give back the same bytes. A `.safetensors` file from another program gets the layout of the
    specification. Files whose names begin with a dot are left out.

    Args:
        directory: The directory.
        target: The checkpoint to write.
        codec: Codec of all members, instead of those in `FACTS_NAME`.
        progress: Called with the progress.

    Raises:
        PackError: A file cannot become a member, a link leads out of the directory, or `FACTS_NAME` is not valid.
        FormatError: A `.msgpack` file is not valid (spec 10, 11).
        ForeignFileError: A `.safetensors` file is not valid.
        StateError: A file cannot be expressed.
        StorageError: A file cannot be read, or `target` cannot be written.
    """
    root = os.fspath(directory)
    codecs, metadata = _facts(Path(root))
    paths = _members(root, codecs)
    with ExitStack() as stack:
        sources = {path.name: stack.enter_context(open_source(str(path))) for path in paths}
        meter = Meter(root, sum(source.size for source in sources.values()), progress)
        chosen = {name: codec or codecs.get(name, "none") for name in sources}
        plans = tuple(_plan(name, sources, chosen[name], meter) for name in sources)
        components = dict.fromkeys(component for name in sources if (component := component_of(name)) is not None)
        report = write_plan(target, SavePlan(tuple(components), plans, metadata))
    return _report(root, report, plans)


def _report(directory: str, report: SaveReport, plans: tuple[MemberPlan, ...]) -> PackReport:
    members = tuple(plan.name for plan in plans)
    return PackReport(directory, report.path, report.identity, report.file_bytes, members)


def _facts(directory: Path) -> tuple[dict[str, str], Metadata]:
    """Return the codecs of the members, in their order, and the facts about the checkpoint."""
    path = directory / FACTS_NAME
    _require_inside(directory, path)
    if look(path) is None:
        return {}, Metadata(created=datetime.now(UTC), producer=f"ckptfmt {__version__}")
    with open_source(str(path)) as source:
        if source.size > _MAX_FACTS_BYTES:
            raise PackError(
                f"{path}: {source.size:,} bytes are too many for this file; write it with `ckptfmt extract`"
            )
        text = source.read(0, source.size)
    try:
        document: dict[str, Any] = json.loads(text)
        codecs = {str(member["name"]): str(member["codec"]) for member in document["members"]}
        metadata = decode_metadata(document["metadata"])
        validate_metadata(metadata)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise PackError(f"{path}: invalid content: {error!s:.300}; write it with `ckptfmt extract`") from error
    unknown = [codec for codec in codecs.values() if codec not in CODECS]
    if unknown:
        raise PackError(f"{path}: {unknown[0]!r:.60} is not a codec; choose from: {', '.join(CODECS)}")
    return codecs, metadata


def _members(directory: str, order: Mapping[str, str]) -> list[Path]:
    """Return the files that become members, in their order."""
    found = [path for path in children(directory) if path.name != FACTS_NAME and not path.name.startswith(".")]
    for path in found:
        _require_inside(directory, path)
        if is_directory(path):
            raise PackError(f"{path}: a directory cannot become a member; move it away")
    missing = [name for name in order if name not in {path.name for path in found}]
    if missing:
        raise PackError(f"{directory}: {missing[0]!r:.170} is missing; restore it, or remove it from {FACTS_NAME}")
    places = {name: number for number, name in enumerate(order)}
    for path in found:
        if is_reserved(path.name) and path.name not in order and component_of(path.name) != ROOT:
            raise PackError(f"{path}: the name is reserved by the format (spec 6.7); rename the file")
    found.sort(key=lambda path: (places.get(path.name, len(places)), *_by_component(path.name)))
    for problem in validate_names([path.name for path in found]):
        where = directory if problem.member is None else Path(directory, problem.member)
        raise PackError(f"{where}: {problem.message}; rename or move files, or edit {FACTS_NAME}")
    return found


def _require_inside(directory: str | Path, path: Path) -> None:
    """Raise if a link leads out of the directory: its target may not be meant to be published."""
    if leads_out_of(Path(directory), path):
        raise PackError(
            f"{path}: the link leads out of the directory, to {real_path(path)}; replace it by the file itself"
        )


def _by_component(name: str) -> tuple[bool, str, str]:
    """Return the key that puts the two members of a component side by side, its tree first (spec 6.4)."""
    component = component_of(name)
    return (component is None, component or name, name)


def _plan(name: str, sources: Mapping[str, Source], codec: str, meter: Meter) -> MemberPlan:
    source = sources[name]
    if name.endswith(SAFETENSORS):
        return _plan_tensors(name, source, codec, meter)
    if name.endswith(MSGPACK):
        return MemberPlan(name, codec, None, [fixed_part(_tree(name, sources))])
    if not source.size:
        raise PackError(f"{source.path}: an empty file cannot become a member (spec 6.6); remove it")
    pieces = (_piece(source, start, meter) for start in range(0, source.size, CHUNK_BYTES))
    return MemberPlan(name, codec, None, list(pieces))


def _piece(source: Source, start: int, meter: Meter) -> ByteSource:
    nbytes = min(CHUNK_BYTES, source.size - start)

    def read() -> bytes:
        meter.advance(nbytes)
        return source.read(start, nbytes)

    return ByteSource(nbytes, WHOLE, read)


def _plan_tensors(name: str, source: Source, codec: str, meter: Meter) -> MemberPlan:
    part = SafetensorsFile(source).component
    header = _header(name, part)
    pieces = [fixed_part(header.block())]
    for tensor in header.by_offset():
        pieces += tensor_bytes(part.tensors[tensor.name], f"{name}: {tensor.name}", meter.advance)
    return MemberPlan(name, codec, header, pieces)


def _header(name: str, part: ComponentSource) -> Header:
    try:
        return plan_header(
            ((name, tensor.dtype, tensor.shape) for name, tensor in part.tensors.items()), part.text_metadata or None
        )
    except FormatError as error:
        raise StateError(name, str(error)) from error


def _tree(name: str, sources: Mapping[str, Source]) -> bytes:
    """Return the bytes of a tree that is valid beside its tensors."""
    source = sources[name]
    if source.size > MAX_MSGPACK_BYTES:
        raise PackError(f"{source.path}: {source.size:,} bytes exceed the limit of {MAX_MSGPACK_BYTES:,} bytes")
    data = source.read(0, source.size)
    sibling = sources.get(name.removesuffix(MSGPACK) + SAFETENSORS)
    header = None if sibling is None else _header(sibling.path, SafetensorsFile(sibling).component)
    tensors = {} if header is None else {entry.name: entry for entry in header.tensors}
    try:
        problems = validate_tree(decode(data, member=name), tensors, name)
        if problems:
            raise error_for(problems)
    except FormatError as error:
        raise error.at(source.path) from error
    return data
