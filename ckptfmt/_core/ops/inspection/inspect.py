"""The content of a file, from its index and its small trees. The data of tensors is not read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ckptfmt._core.format.dtypes import kind_of
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.interop.base import ComponentSource, MemberInfo, RankedValue, TensorFile, TensorInfo
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.interop.ranked import as_rank_0
from ckptfmt._core.ops.inspection.component_roles import (
    PlaceInfo,
    RandomInfo,
    Role,
    SchedulerInfo,
    look_at_place,
    look_at_random,
    look_at_scheduler,
    role_of,
)
from ckptfmt._core.ops.inspection.optimizers import OptimizerInfo, look_at_optimizer
from ckptfmt._core.ops.inspection.resumable import ResumeAnswer, can_resume
from ckptfmt._core.ops.report_json import metadata_json, problem_json
from ckptfmt.errors import FormatError, Problem

__all__ = [
    "ComponentInfo",
    "InspectReport",
    "MemberInfo",
    "StateInfo",
    "TensorInfo",
    "inspect_file",
    "metadata_json",
    "report_of",
]


@dataclass(frozen=True)
class ComponentInfo:
    """One component: a named part of the state.

    Attributes:
        name: Name of the component.
        kind: `flat` for a mapping of tensors, `tree` for anything else (spec 11.1, 11.2).
        role: Its role in training, judged by its content.
        codec: Codec of its members.
        members: Its one or two members, in file order; none in other formats.
        tensors: Number of its tensors.
        elements: Number of elements of all its tensors; for weights, the number of parameters.
        logical_bytes: Length of its members after decoding.
        stored_bytes: Length of its members in the file.
        text_metadata: The safetensors `__metadata__`.
    """

    name: str
    kind: Literal["flat", "tree"]
    role: Role
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
            "role": self.role.value,
            "codec": self.codec,
            "members": [member.to_json() for member in self.members],
            "tensors": self.tensors,
            "elements": self.elements,
            "logical_bytes": self.logical_bytes,
            "stored_bytes": self.stored_bytes,
            "text_metadata": dict(self.text_metadata),
        }


@dataclass(frozen=True)
class StateInfo:
    """What the trees of a file record of training.

    Attributes:
        optimizers: Its optimizers, in file order.
        schedulers: Its learning rate schedulers.
        random: Its saved random states.
        places: Its positions in the data.
        resume: What training can do with the file.
        problems: Damage that made a component unreadable.
        per_rank: Values that differ between the ranks of its job; everything else here is from rank 0.
    """

    optimizers: tuple[OptimizerInfo, ...]
    schedulers: tuple[SchedulerInfo, ...]
    random: tuple[RandomInfo, ...]
    places: tuple[PlaceInfo, ...]
    resume: ResumeAnswer
    problems: tuple[Problem, ...] = ()
    per_rank: tuple[RankedValue, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return it in JSON.

        Keys: `optimizers`, `schedulers`, `random`, `places`, `per_rank` (arrays, see the `to_json` of each), `resume`
        (see `ResumeAnswer.to_json`), `problems` (array, see `problem_json`).
        """
        return {
            "optimizers": [info.to_json() for info in self.optimizers],
            "schedulers": [info.to_json() for info in self.schedulers],
            "random": [info.to_json() for info in self.random],
            "places": [info.to_json() for info in self.places],
            "per_rank": [value.to_json() for value in self.per_rank],
            "resume": self.resume.to_json(),
            "problems": [problem_json(problem) for problem in self.problems],
        }


@dataclass(frozen=True)
class InspectReport:
    """Report of the content of one file.

    Attributes:
        path: The file, as it was named.
        form: Its format: `ckptfmt`, `safetensors` or `npz`.
        file_bytes: Length of the file.
        version: Format version, major and minor; None in a file of another format.
        identity: Identity of the file (spec 12.1), 64 hexadecimal digits; None in a file of another format.
        required_features: Features that a reader has to know.
        metadata: Facts about the checkpoint.
        components: In file order.
        opaque: Members that belong to no component, in file order.
        tensors: All tensors, component by component, each in the component's own order.
        state: What its trees record of training.
    """

    path: str
    form: str
    file_bytes: int
    version: tuple[int, int] | None
    identity: str | None
    required_features: tuple[str, ...]
    metadata: Metadata
    components: tuple[ComponentInfo, ...]
    opaque: tuple[MemberInfo, ...]
    tensors: tuple[TensorInfo, ...]
    state: StateInfo

    @property
    def elements(self) -> int:
        """Number of elements in all tensors."""
        return sum(component.elements for component in self.components)

    @property
    def parameters(self) -> int:
        """Number of floating-point elements in the components that are weights."""
        weights = {component.name for component in self.components if component.role is Role.WEIGHTS}
        return sum(tensor.elements for tensor in self.tensors if tensor.component in weights and is_float(tensor.dtype))

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

        Keys: `report` (`"inspect/1"`), `path`, `form`, `file_bytes`, `version` (`"1.0"` or null), `identity` (or
        null), `required_features`, `metadata` (see `metadata_json`), `components` (`ComponentInfo.to_json`),
        `opaque` (`MemberInfo.to_json`), `tensors` (`TensorInfo.to_json`), `state` (`StateInfo.to_json`), and
        `totals`: `tensors`, `elements` and `parameters` (counts), `tensor_bytes`, `bytes_by_dtype` and
        `bytes_by_component` (logical bytes).
        """
        return {
            "report": "inspect/1",
            "path": self.path,
            "form": self.form,
            "file_bytes": self.file_bytes,
            "version": None if self.version is None else "{}.{}".format(*self.version),
            "identity": self.identity,
            "required_features": list(self.required_features),
            "metadata": metadata_json(self.metadata),
            "components": [component.to_json() for component in self.components],
            "opaque": [member.to_json() for member in self.opaque],
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "state": self.state.to_json(),
            "totals": {
                "tensors": len(self.tensors),
                "elements": self.elements,
                "parameters": self.parameters,
                "tensor_bytes": self.tensor_bytes,
                "bytes_by_dtype": dict(self.bytes_by_dtype),
                "bytes_by_component": {item.name: item.logical_bytes for item in self.components},
            },
        }


_TREE_BYTES = 16 << 20  # larger trees are data: no training state takes this much beside its tensors


def is_float(dtype: str) -> bool:
    """Say whether a dtype is one of real or complex floating-point numbers."""
    return kind_of(dtype) in ("f", "c")


def inspect_file(path: str | os.PathLike[str], *, inert: Collection[str] = ()) -> InspectReport:
    """Return the content of a checkpoint in any format.

    Only the head, the index, trees of at most 16 MiB (such as the hyperparameters of the optimizer) and a few step
    counters are read, however large the file is. `verify_paths` checks the data. A damaged tree is a problem in the
    report.

    Args:
        path: The file.
        inert: See `interop.opening.open_tensors`.

    Raises:
        FormatError: The file is truncated, malformed, damaged in its index, or from a newer version.
        ForeignFileError: The file is not a valid file of its format.
        StorageError: The file cannot be read.
    """
    with open_tensors(path, inert=inert) as file:
        return report_of(file, os.fspath(path))


def report_of(file: TensorFile, path: str) -> InspectReport:
    """Return the content of an open file."""
    trees, per_rank, problems = _trees(file)
    roles = {name: role_of(name, tree, file.components[name].tensors) for name, tree in trees.items()}
    components = [_component_info(part, roles.get(name, Role.OTHER)) for name, part in file.components.items()]
    return InspectReport(
        path=path,
        form=file.form,
        file_bytes=file.file_bytes,
        version=file.version,
        identity=file.identity,
        required_features=tuple(file.required_features),
        metadata=file.metadata,
        components=tuple(components),
        opaque=file.opaque,
        tensors=tuple(file.tensors),
        state=_state(file, trees, roles, per_rank, problems),
    )


def _trees(file: TensorFile) -> tuple[dict[str, object], list[RankedValue], list[Problem]]:
    """Return the trees of the components that are neither damaged nor large, with the values of rank 0.

    Returns:
        The trees, the values that differ between ranks, and what is wrong with damaged components.
    """
    trees: dict[str, object] = {}
    per_rank: list[RankedValue] = []
    problems: list[Problem] = []
    for name, part in file.components.items():
        if any(member.kind == "msgpack" and member.logical_bytes > _TREE_BYTES for member in part.members):
            continue
        try:
            trees[name], found = as_rank_0(name, part.tree())
            per_rank += found
        except FormatError as error:
            problems += error.problems
    return trees, per_rank, problems


def _state(
    file: TensorFile,
    trees: Mapping[str, object],
    roles: Mapping[str, Role],
    per_rank: list[RankedValue],
    problems: list[Problem],
) -> StateInfo:
    optimizers = []
    for name, tree in _with_role(Role.OPTIMIZER, trees, roles):
        try:
            optimizers.append(look_at_optimizer(file.components[name], tree))
        except FormatError as error:
            problems += error.problems
    maps = {name: tree for name, tree in trees.items() if isinstance(tree, dict)}
    return StateInfo(
        optimizers=tuple(optimizers),
        schedulers=tuple(look_at_scheduler(name, maps[name]) for name, _ in _with_role(Role.SCHEDULER, trees, roles)),
        random=tuple(
            look_at_random(name, tree, file.components[name].tensors)
            for name, tree in _with_role(Role.RANDOM, trees, roles)
        ),
        places=tuple(look_at_place(name, maps[name]) for name, _ in _with_role(Role.PROGRESS, trees, roles)),
        resume=can_resume(set(roles.values())),
        problems=tuple(problems),
        per_rank=tuple(per_rank),
    )


def _with_role(role: Role, trees: Mapping[str, object], roles: Mapping[str, Role]) -> Iterator[tuple[str, object]]:
    return ((name, tree) for name, tree in trees.items() if roles[name] is role)


def _component_info(part: ComponentSource, role: Role) -> ComponentInfo:
    return ComponentInfo(
        name=part.name,
        kind="flat" if part.flat else "tree",
        role=role,
        codec=part.codec,
        members=part.members,
        tensors=len(part.tensors),
        elements=sum(tensor.elements for tensor in part.tensors.values()),
        logical_bytes=part.logical_bytes,
        stored_bytes=part.stored_bytes,
        text_metadata=part.text_metadata,
    )
