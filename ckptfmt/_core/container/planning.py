"""The plan of a checkpoint: its content is decided and checked before the first byte is written (spec 11, 15).

A plan holds no copies of tensors, only the means to read them. Everything else in the state is in the plan as bytes,
so later changes do not affect it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ckptfmt._core.container.adapter_set import EncoderSet
from ckptfmt._core.container.pytorch_epochs import epochs_finished
from ckptfmt._core.container.state.flattening import FlatComponent, flatten_state
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt._core.format.index import CODECS, MSGPACK, SAFETENSORS, Member, Metadata, shown_name
from ckptfmt._core.format.layout import MAX_MEMBERS, MEMBER_ALIGNMENT, align
from ckptfmt._core.format.parsing import validate_metadata, validate_names
from ckptfmt._core.format.planes import WHOLE, Split
from ckptfmt._core.format.tensors import Header, plan_header
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt._version import __version__
from ckptfmt.errors import FormatError, StateError

SMALL_BYTES = 64 << 10
"""Tensors up to this length are read as separate bytes objects, which the garbage collector does not track."""


class ByteSource(NamedTuple):
    """A piece of a member: the bytes of one tensor, or bytes that are there already.

    Attributes:
        nbytes: Its length in bytes.
        split: How it is split under codec `zstd` (8.3).
        read: Returns the bytes. May copy.
        copy_into: Copies the bytes of a tensor to memory of this length; None if they cannot change.
    """

    nbytes: int
    split: Split
    read: Callable[[], BytesLike]
    copy_into: Callable[[memoryview], None] | None = None


@dataclass(frozen=True)
class MemberPlan:
    """Plan of a member.

    Attributes:
        name: Its name.
        codec: Its codec.
        header: Its header, if it is a safetensors member.
        parts: Its bytes, in file order.
    """

    name: str
    codec: str
    header: Header | None
    parts: Sequence[ByteSource]

    @property
    def logical_bytes(self) -> int:
        """Its uncompressed length in bytes."""
        return sum(part.nbytes for part in self.parts)


@dataclass(frozen=True)
class StoredMember:
    """Plan of a member that is copied from another checkpoint as it is stored there.

    Attributes:
        member: The member, as the index of that checkpoint describes it.
        parts: Its stored bytes, in file order. They are read from several threads.
    """

    member: Member
    parts: Iterable[ByteSource]

    @property
    def name(self) -> str:
        """Its name."""
        return self.member.name


@dataclass(frozen=True)
class SavePlan:
    """Plan of a checkpoint.

    Attributes:
        components: Names of the components, in file order.
        members: The members, in file order.
        metadata: Facts for the index.
        per_rank: Places of the values that differ between ranks, such as `net.avg`.
    """

    components: tuple[str, ...]
    members: tuple[MemberPlan, ...]
    metadata: Metadata
    per_rank: tuple[str, ...] = ()

    @property
    def file_bytes(self) -> int | None:
        """Approximate length of the file; None if compression makes it unpredictable."""
        if any(member.codec != "none" for member in self.members):
            return None
        return MEMBER_ALIGNMENT + sum(align(member.logical_bytes, MEMBER_ALIGNMENT) for member in self.members)


def plan_save(
    state: object,
    encoders: EncoderSet,
    *,
    metadata: Metadata,
    codec: str | Mapping[str, str] = "none",
    text_metadata: Mapping[str, Mapping[str, str]] | None = None,
) -> SavePlan:
    """Return the plan of a checkpoint.

    Args:
        state: A mapping of component names to trees, or any other tree (11.5).
        encoders: Encode the tensors and values of frameworks.
        metadata: Facts for the index.
        codec: One for all components, or a mapping of component name to codec (the others: `none`).
        text_metadata: `__metadata__` of the safetensors members, by component.

    Raises:
        StateError: The state, or an argument, cannot be expressed.
    """
    with collector_paused():
        components = list(flatten_state(state, encoders))
    return plan_components(components, metadata=metadata, codec=codec, text_metadata=text_metadata or {})


def plan_components(
    components: Sequence[FlatComponent],
    *,
    metadata: Metadata,
    codec: str | Mapping[str, str] = "none",
    text_metadata: Mapping[str, Mapping[str, str]],
    per_rank: Sequence[str] = (),
) -> SavePlan:
    """Return the plan of a checkpoint of flattened components.

    Args:
        components: The components, in file order.
        metadata: Facts for the index.
        codec: As for `plan_save`.
        text_metadata: As for `plan_save`.
        per_rank: Places of the values that differ between ranks, for the report.

    Raises:
        StateError: They, or an argument, cannot be expressed.
    """
    require_valid((), metadata)
    with collector_paused():
        return _plan(components, metadata, codec, text_metadata, tuple(per_rank))


def require_valid(names: Sequence[str], metadata: Metadata) -> None:
    """Check the names of members, in file order, and the metadata the way a reader does (15.1).

    Raises:
        StateError: A reader would refuse them.
    """
    problems = validate_names(names)
    if problems:
        raise StateError("state", "; ".join(map(str, problems[:3])), "see section 6 of the specification")
    try:
        validate_metadata(metadata)
    except (FormatError, TypeError, ValueError) as error:
        raise StateError("metadata", str(error), "see the arguments of ckptfmt.save") from error


def _plan(
    components: Sequence[FlatComponent],
    metadata: Metadata,
    codec: str | Mapping[str, str],
    text_metadata: Mapping[str, Mapping[str, str]],
    per_rank: tuple[str, ...],
) -> SavePlan:
    codecs = choose_codecs(codec, [component.name for component in components])
    members = tuple(
        plan
        for component in components
        for plan in _plan_members(component, codecs[component.name], text_metadata.get(component.name))
    )
    if len(members) > MAX_MEMBERS:
        found = f"{len(members)} members, the limit is {MAX_MEMBERS}"
        raise StateError("state", found, "put components into one mapping")
    return SavePlan(tuple(component.name for component in components), members, metadata, per_rank)


def fixed_part(content: bytes) -> ByteSource:
    """Return a source of these bytes."""
    return ByteSource(len(content), WHOLE, lambda: content)


def _plan_members(
    component: FlatComponent, codec: str, text_metadata: Mapping[str, str] | None
) -> Iterator[MemberPlan]:
    if component.structure is not None:
        yield MemberPlan(component.name + MSGPACK, codec, None, [fixed_part(component.structure)])
    if not component.tensors:
        return
    try:
        header = plan_header(
            ((name, leaf.dtype, leaf.shape) for name, leaf in component.tensors.items()), text_metadata
        )
    except FormatError as error:
        raise StateError(shown_name(component.name), str(error)) from error
    parts = [fixed_part(header.block())]
    for tensor in header.by_offset():
        leaf = component.tensors[tensor.name]
        read = leaf.read_copy if tensor.nbytes <= SMALL_BYTES else leaf.read
        parts.append(ByteSource(tensor.nbytes, DTYPES[leaf.dtype].split, read, leaf.copy_into))
    yield MemberPlan(component.name + SAFETENSORS, codec, header, parts)


def choose_codecs(codec: str | Mapping[str, str], components: Sequence[str]) -> dict[str, str]:
    """Return the codec of each component.

    Raises:
        StateError: The codec or the component does not exist.
    """
    chosen = dict.fromkeys(components, codec) if isinstance(codec, str) else dict.fromkeys(components, "none")
    if not isinstance(codec, str):
        unknown = [name for name in codec if name not in chosen]
        if unknown:
            raise StateError("codec", f"the state has no component {unknown[0]!r}; it has: {', '.join(components)}")
        chosen.update(codec)
    for name in chosen.values():
        if name not in CODECS:
            raise StateError("codec", f"{name!r} is not a codec", f"use one of: {', '.join(CODECS)}")
    return chosen


def make_metadata(
    state: object,
    *,
    step: int | None = None,
    epoch: int | None = None,
    metrics: Mapping[str, float] | None = None,
    run_id: str | None = None,
    generation: int | None = None,
    parent: str | None = None,
    user: Mapping[str, Any] | None = None,
    created: datetime | None = None,
) -> Metadata:
    """Return the metadata for the arguments of `ckptfmt.save` and the generation of a run (spec 5.3).

    Raises:
        StateError: `parent` is not an identity, or `created` is not aware.
    """
    epoch = epochs_finished(state) if epoch is None else epoch
    if created is not None and created.tzinfo is None:
        raise StateError("created", "a datetime without a time zone", "use datetime.now(timezone.utc)")
    try:
        parent_bytes = None if parent is None else bytes.fromhex(parent)
    except ValueError:
        raise StateError("parent", f"{parent!r} is not an identity", "give the 64 hex digits of one") from None
    return Metadata(
        run_id=run_id,
        generation=generation,
        step=step,
        epoch=epoch,
        metrics=None if metrics is None else {name: float(value) for name, value in metrics.items()},
        created=datetime.now(UTC) if created is None else created,
        parent=parent_bytes,
        producer=f"ckptfmt {__version__}",
        user=user,
    )
