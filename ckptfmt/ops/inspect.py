"""What stands in a checkpoint file, told from its index. The data are not read: see `inspect_file`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ckptfmt.format.index import Member, Metadata
from ckptfmt.ops.jsonform import float_json, time_json, value_json
from ckptfmt.reader import Checkpoint, Component

__all__ = ["ComponentInfo", "InspectReport", "MemberInfo", "TensorInfo", "inspect_file", "metadata_json"]


@dataclass(frozen=True)
class MemberInfo:
    """One member: a run of bytes of the file.

    Attributes:
        name: Name of the member, such as `net.safetensors`.
        kind: What its name says it is: `safetensors`, `msgpack` or `opaque` (spec 6.3).
        codec: How it is stored (spec section 8).
        offset: Absolute offset of its first stored byte.
        stored_bytes: Length as it lies in the file.
        logical_bytes: Length after decoding.
    """

    name: str
    kind: str
    codec: str
    offset: int
    stored_bytes: int
    logical_bytes: int

    def to_json(self) -> dict[str, object]:
        """Return the member in JSON: the attributes under their names."""
        return {
            "name": self.name,
            "kind": self.kind,
            "codec": self.codec,
            "offset": self.offset,
            "stored_bytes": self.stored_bytes,
            "logical_bytes": self.logical_bytes,
        }


@dataclass(frozen=True)
class TensorInfo:
    """One tensor.

    Attributes:
        component: Name of its component.
        name: Its name in the component.
        dtype: Name of the dtype (spec section 9), such as `F32`.
        shape: Its shape.
        nbytes: Length of its data before any compression.
    """

    component: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    def to_json(self) -> dict[str, object]:
        """Return the tensor in JSON: `component`, `name`, `dtype`, `shape` (array), `nbytes`."""
        return {
            "component": self.component,
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "nbytes": self.nbytes,
        }


@dataclass(frozen=True)
class ComponentInfo:
    """One component: a named part of the state.

    Attributes:
        name: Name of the component.
        kind: `flat` for a mapping of tensors, `tree` for anything else (spec 11.1, 11.2).
        codec: How its members are stored.
        members: Its one or two members, in file order.
        tensors: Number of its tensors.
        elements: Number of elements in all its tensors. For a component of weights: its parameters.
        logical_bytes: Length of its members after decoding.
        stored_bytes: Length of its members in the file.
        text_metadata: The safetensors `__metadata__`.
    """

    name: str
    kind: Literal["flat", "tree"]
    codec: str
    members: tuple[MemberInfo, ...]
    tensors: int
    elements: int
    logical_bytes: int
    stored_bytes: int
    text_metadata: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """Return the component in JSON: the attributes under their names, `members` as `MemberInfo.to_json`."""
        return {
            "name": self.name,
            "kind": self.kind,
            "codec": self.codec,
            "members": [member.to_json() for member in self.members],
            "tensors": self.tensors,
            "elements": self.elements,
            "logical_bytes": self.logical_bytes,
            "stored_bytes": self.stored_bytes,
            "text_metadata": dict(self.text_metadata),
        }


@dataclass(frozen=True)
class InspectReport:
    """What stands in one file.

    Attributes:
        path: The file, as it was named.
        file_bytes: Length of the file.
        version: Format version, major and minor.
        identity: Identity of the file (spec 12.1), 64 hexadecimal digits.
        required_features: Features that a reader has to know.
        metadata: Facts about the checkpoint.
        components: In file order.
        opaque: Members that belong to no component, in file order.
        tensors: All tensors, component by component, each in the component's own order.
    """

    path: str
    file_bytes: int
    version: tuple[int, int]
    identity: str
    required_features: tuple[str, ...]
    metadata: Metadata
    components: tuple[ComponentInfo, ...]
    opaque: tuple[MemberInfo, ...]
    tensors: tuple[TensorInfo, ...]

    @property
    def elements(self) -> int:
        """Number of elements in all tensors."""
        return sum(component.elements for component in self.components)

    @property
    def tensor_bytes(self) -> int:
        """Length of all tensors before any compression."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def bytes_by_dtype(self) -> Mapping[str, int]:
        """Length of the tensors of each dtype, largest first."""
        count: Counter[str] = Counter()
        for tensor in self.tensors:
            count[tensor.dtype] += tensor.nbytes
        return dict(count.most_common())

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"inspect/1"`), `path`, `file_bytes`, `version` (`"1.0"`), `identity`,
        `required_features`, `metadata` (see `metadata_json`), `components` (`ComponentInfo.to_json`), `opaque`
        (`MemberInfo.to_json`), `tensors` (`TensorInfo.to_json`), and `totals`: `tensors` and `elements` (counts),
        `tensor_bytes`, `bytes_by_dtype` and `bytes_by_component` (logical bytes).
        """
        return {
            "report": "inspect/1",
            "path": self.path,
            "file_bytes": self.file_bytes,
            "version": "{}.{}".format(*self.version),
            "identity": self.identity,
            "required_features": list(self.required_features),
            "metadata": metadata_json(self.metadata),
            "components": [component.to_json() for component in self.components],
            "opaque": [member.to_json() for member in self.opaque],
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "totals": {
                "tensors": len(self.tensors),
                "elements": self.elements,
                "tensor_bytes": self.tensor_bytes,
                "bytes_by_dtype": dict(self.bytes_by_dtype),
                "bytes_by_component": {item.name: item.logical_bytes for item in self.components},
            },
        }


def metadata_json(metadata: Metadata) -> dict[str, object]:
    """Return the metadata of a checkpoint in JSON.

    Keys, each null where the file does not say: `run_id`, `step`, `epoch`, `metrics` (object of numbers; one that
    is not finite is the string `"NaN"`, `"Infinity"` or `"-Infinity"`), `created` (ISO 8601, UTC), `parent`
    (64 hexadecimal digits), `producer`, `user` (see `value_json`).
    """
    metrics = metadata.metrics
    return {
        "run_id": metadata.run_id,
        "step": metadata.step,
        "epoch": metadata.epoch,
        "metrics": None if metrics is None else {name: float_json(value) for name, value in metrics.items()},
        "created": None if metadata.created is None else time_json(metadata.created),
        "parent": None if metadata.parent is None else metadata.parent.hex(),
        "producer": metadata.producer,
        "user": value_json(metadata.user),
    }


def inspect_file(path: str | os.PathLike[str]) -> InspectReport:
    """Return what stands in a file.

    Only the first 64 bytes and the index at the end are read, however large the file is. That the data are
    what the writer wrote is for `verify_paths` to say.

    Raises:
        FormatError: The file is truncated, malformed, damaged in its index, or from a newer version.
        StorageError: The file cannot be read.
    """
    with Checkpoint.open(path) as checkpoint:
        members: dict[str | None, list[MemberInfo]] = {None: []}
        for member in checkpoint.index.members:
            members.setdefault(member.component, []).append(_member_info(member))
        components = [checkpoint[name] for name in checkpoint]
        return InspectReport(
            path=os.fspath(path),
            file_bytes=checkpoint.file_bytes,
            version=checkpoint.version,
            identity=checkpoint.identity,
            required_features=tuple(checkpoint.index.required_features),
            metadata=checkpoint.metadata,
            components=tuple(_component_info(component, members[component.name]) for component in components),
            opaque=tuple(members[None]),
            tensors=tuple(info for component in components for info in _tensor_infos(component)),
        )


def _component_info(component: Component, members: Iterable[MemberInfo]) -> ComponentInfo:
    return ComponentInfo(
        name=component.name,
        kind="flat" if component.flat else "tree",
        codec=component.codec,
        members=tuple(members),
        tensors=len(component.tensors),
        elements=sum(entry.elements for entry in component.tensors.values()),
        logical_bytes=component.logical_bytes,
        stored_bytes=component.stored_bytes,
        text_metadata=component.text_metadata,
    )


def _member_info(member: Member) -> MemberInfo:
    return MemberInfo(
        name=member.name,
        kind=member.kind,
        codec=member.codec,
        offset=member.offset,
        stored_bytes=member.stored_bytes,
        logical_bytes=member.logical_bytes,
    )


def _tensor_infos(component: Component) -> list[TensorInfo]:
    return [
        TensorInfo(component.name, entry.name, entry.dtype, entry.shape, entry.nbytes)
        for entry in component.tensors.values()
    ]
