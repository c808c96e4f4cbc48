"""What differs between two files, from digests where they exist, and from the data on request."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ckptfmt._core.format.index import ROOT
from ckptfmt._core.interop.base import ComponentSource, TensorFile
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.ops.comparison.tensor_changes import Pair, TensorChange, compare_tensors
from ckptfmt._core.ops.comparison.trees import ABSENT, LeafChange, compare_trees, is_same_value
from ckptfmt._core.ops.inspection.component_roles import Role
from ckptfmt._core.ops.inspection.inspect import InspectReport, report_of
from ckptfmt._core.ops.inspection.optimizers import parameters_of
from ckptfmt._core.ops.inspection.resumable import Resumable
from ckptfmt._core.ops.progress import Report
from ckptfmt._core.ops.report_json import metadata_json

__all__ = [
    "ComponentDifference",
    "DiffReport",
    "FactChange",
    "ResumeVerdict",
    "Side",
    "diff_files",
]


# At the beginning of a path in the state of several generators, and what that of a single one consists of.
_GENERATOR = re.compile(r"(?: of rank [0-9]+|[0-9]+)?\.?([a-z_]+)")
_OF_A_SINGLE_ONE = frozenset({"kind", "state", "bit_generator", "has_uint", "has_gauss", "uinteger", "gauss"})


class Side(StrEnum):
    """Where a component is."""

    BOTH = "both"
    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class ComponentDifference:
    """How a component differs.

    Attributes:
        name: Its name; the name in the second file if the first one has no named components.
        side: The file that contains it, or both.
        equal: Number of equal tensors.
        tensors: Number of tensors that differ; all of them if only one file contains the component.
        values: Number of values that differ.
        opaque: Whether it is a member that belongs to no component.
        generators: If it holds states of random generators, those that differ, such as `python` or `numpy`.
    """

    name: str
    side: Side
    equal: int = 0
    tensors: int = 0
    values: int = 0
    opaque: bool = False
    generators: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return self.side is Side.BOTH and self.tensors == self.values == 0

    def to_json(self) -> dict[str, object]:
        """Return it in JSON.

        Keys: `name`, `side`, `same`, `equal_tensors`, `changed_tensors`, `changed_values`, `opaque`, `generators`
        (array of names).
        """
        return {
            "name": self.name,
            "side": self.side.value,
            "same": self.same,
            "equal_tensors": self.equal,
            "changed_tensors": self.tensors,
            "changed_values": self.values,
            "opaque": self.opaque,
            "generators": list(self.generators),
        }


@dataclass(frozen=True)
class FactChange:
    """A fact about the checkpoint that differs.

    Attributes:
        name: Its name: `step`, `metrics.val_loss`, `user.note`, ...
        before: Its value in the first file, in JSON; `ABSENT` if there is none.
        after: Its value in the second file; likewise.
    """

    name: str
    before: object
    after: object

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `name`, `before`, `after`; a side without a value has no key."""
        sides = {"before": self.before, "after": self.after}
        return {"name": self.name, **{side: value for side, value in sides.items() if value is not ABSENT}}


@dataclass(frozen=True)
class ResumeVerdict:
    """Would both files resume identically, bit for bit?

    Attributes:
        identical: Yes or no; None if the files do not contain enough to decide.
        reason: The reason.
    """

    identical: bool | None
    reason: str

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `identical` (boolean or null), `reason`."""
        return {"identical": self.identical, "reason": self.reason}


@dataclass(frozen=True)
class DiffReport:
    """Report of a comparison.

    Attributes:
        before: Content of the first file.
        after: Content of the second file.
        components: All components of both files, in the order of the first.
        facts: Facts about the checkpoints that differ. They do not count for `same`.
        values: Values in trees that differ, such as hyperparameters.
        tensors: Tensors that differ; the largest differences first if values were compared.
        resume: Whether both would resume identically.
        tolerance: Absolute differences up to this do not count for `same`; None: all count.
    """

    before: InspectReport
    after: InspectReport
    components: tuple[ComponentDifference, ...]
    facts: tuple[FactChange, ...]
    values: tuple[LeafChange, ...]
    tensors: tuple[TensorChange, ...]
    resume: ResumeVerdict
    tolerance: float | None = None

    @property
    def equal_tensors(self) -> int:
        """Number of tensors that are equal."""
        return sum(component.equal for component in self.components)

    @property
    def same(self) -> bool:
        """Whether the content is the same: all components, up to the tolerance."""
        if self.values or any(
            item.side is not Side.BOTH or (item.opaque and not item.same) for item in self.components
        ):
            return False
        return all(self.within(change) for change in self.tensors)

    def within(self, change: TensorChange) -> bool:
        """Say whether a change is within the tolerance, so that it does not count."""
        found = change.values
        return self.tolerance is not None and found is not None and found.max_abs <= self.tolerance

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"diff/1"`), `before` and `after` (objects: `path`, `form`, `identity` or null, `metadata`),
        `same` (boolean), `tolerance` (or null), `components` (`ComponentDifference.to_json`), `facts`
        (`FactChange.to_json`), `values` (`LeafChange.to_json`), `tensors` (`TensorChange.to_json`), `equal_tensors`
        (count), `resume` (`ResumeVerdict.to_json`).
        """
        return {
            "report": "diff/1",
            "before": _side_json(self.before),
            "after": _side_json(self.after),
            "same": self.same,
            "tolerance": self.tolerance,
            "components": [component.to_json() for component in self.components],
            "facts": [fact.to_json() for fact in self.facts],
            "values": [value.to_json() for value in self.values],
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "equal_tensors": self.equal_tensors,
            "resume": self.resume.to_json(),
        }


def diff_files(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    *,
    values: bool = False,
    tolerance: float | None = None,
    inert: Collection[str] = (),
    progress: Report | None = None,
) -> DiffReport:
    """Return what differs between two files, of any formats.

    Between two checkpoints in the native format, no tensor is read unless `values` is set: digests show which are
    equal. In a file without digests, every tensor with a counterpart is read.

    Args:
        before: The first file.
        after: The second file.
        values: Read the tensors that differ and measure how far apart they are.
        tolerance: Absolute differences up to this do not count as such; implies `values`.
        inert: See `interop.opening.open_tensors`.
        progress: Takes how far the reading is.

    Raises:
        FormatError: A file is not valid, or the part to read is damaged.
        ForeignFileError: Likewise, for other formats.
        StorageError: A file cannot be read.
    """
    with open_tensors(before, inert=inert) as one, open_tensors(after, inert=inert) as other:
        reports = report_of(one, os.fspath(before)), report_of(other, os.fspath(after))
        pairs = list(_pairs(one, other))
        found = compare_tensors(pairs, values=values or tolerance is not None, progress=progress)
        changes = _with_parameters(found, one, other)
        leaves = [leaf for pair in pairs for leaf in _leaf_changes(*pair)]
        random = {part.name for report in reports for part in report.components if part.role is Role.RANDOM}
        components = [*(_component(pair, changes, leaves, random) for pair in pairs), *_opaque(one, other)]
    return DiffReport(
        *reports,
        components=tuple(components),
        facts=tuple(_facts(one, other)),
        values=tuple(leaves),
        tensors=changes,
        resume=_verdict(components, *reports),
        tolerance=tolerance,
    )


def _pairs(one: TensorFile, other: TensorFile) -> Iterator[Pair]:
    """Yield which component of the first file is which of the second one."""
    names = {name: name for name in one.components if name in other.components}
    if not names:
        # A file without named components is one component; the names of its tensors show which one.
        if list(one.components) == [ROOT] and (likely := _likeliest(one.components[ROOT], other.components)):
            names = {ROOT: likely}
        elif list(other.components) == [ROOT] and (likely := _likeliest(other.components[ROOT], one.components)):
            names = {likely: ROOT}
    for name, part in one.components.items():
        yield part, other.components[names[name]] if name in names else None
    taken = set(names.values())
    for name, part in other.components.items():
        if name not in taken:
            yield None, part


def _likeliest(part: ComponentSource, parts: Mapping[str, ComponentSource]) -> str | None:
    shared = {name: len(part.tensors.keys() & candidate.tensors.keys()) for name, candidate in parts.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    return best if best is not None and shared[best] else None


def _leaf_changes(one: ComponentSource | None, other: ComponentSource | None) -> Iterator[LeafChange]:
    if one is None or other is None or (one.identity is not None and one.identity == other.identity):
        return
    if one.flat != other.flat and {one.name, other.name} & {ROOT}:
        return  # a tree of tensors only against a format without trees: the tensors show the difference
    trees = [{} if part.flat else part.tree() for part in (one, other)]
    yield from compare_trees(other.name if one.name == ROOT else one.name, *trees)


def _with_parameters(changes: tuple[TensorChange, ...], one: TensorFile, other: TensorFile) -> tuple[TensorChange, ...]:
    """Return the changes with the names of the parameters that an optimizer's tensors are kept for."""
    names: dict[tuple[str, str], str] = {}
    for file, side in ((other, [change.after for change in changes]), (one, [change.before for change in changes])):
        for component in dict.fromkeys(info.component for info in side if info is not None):
            part = file.components[component]
            tree = None if part.flat else part.tree()
            names |= {(component, tensor): name for tensor, name in parameters_of(tree).items()}

    def parameter(change: TensorChange) -> str | None:
        info = change.before or change.after
        return None if info is None else names.get((info.component, info.name))

    return tuple(replace(change, parameter=parameter(change)) for change in changes)


def _component(
    pair: Pair, changes: Iterable[TensorChange], leaves: Iterable[LeafChange], random: Collection[str]
) -> ComponentDifference:
    one, other = pair
    if one is None or other is None:
        part = one or other
        assert part is not None  # a pair has at least one
        return ComponentDifference(part.name, Side.AFTER if one is None else Side.BEFORE, tensors=len(part.tensors))
    name = other.name if one.name == ROOT else one.name
    mine = [
        change
        for change in changes
        if (change.before is not None and change.before.component == one.name)
        or (change.before is None and change.after is not None and change.after.component == other.name)
    ]
    gone = sum(change.before is not None for change in mine)
    own = [leaf for leaf in leaves if leaf.component == name]
    return ComponentDifference(
        name=name,
        side=Side.BOTH,
        equal=len(one.tensors) - gone,
        tensors=len(mine),
        values=len(own),
        generators=tuple(_generators(name, mine, own)) if name in random else (),
    )


def _generators(component: str, changes: Iterable[TensorChange], leaves: Iterable[LeafChange]) -> list[str]:
    """Return the names of the generators whose states differ."""
    infos = [change.before or change.after for change in changes]
    paths = [*(leaf.path for leaf in leaves), *(info.name for info in infos if info is not None)]
    found = [_GENERATOR.match(path) for path in paths]
    names = {component if match is None or match[1] in _OF_A_SINGLE_ONE else match[1] for match in found}
    return sorted(names)


def _opaque(one: TensorFile, other: TensorFile) -> Iterator[ComponentDifference]:
    before, after = one.opaque_digests, other.opaque_digests
    for name in (*before, *(name for name in after if name not in before)):
        side = Side.BOTH if name in before and name in after else Side.BEFORE if name in before else Side.AFTER
        changed = side is Side.BOTH and before[name] != after[name]
        yield ComponentDifference(name, side, values=int(changed), opaque=True)


def _facts(one: TensorFile, other: TensorFile) -> Iterator[FactChange]:
    before, after = (dict(_flat_facts(file)) for file in (one, other))
    for name in (*before, *(name for name in after if name not in before)):
        values = before.get(name, ABSENT), after.get(name, ABSENT)
        if not is_same_value(*values):
            yield FactChange(name, *values)


def _flat_facts(file: TensorFile) -> Iterator[tuple[str, object]]:
    for name, value in metadata_json(file.metadata).items():
        if isinstance(value, dict) and name in ("metrics", "user"):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        elif value is not None:
            yield name, value
    for part in file.components.values():
        prefix = "" if part.name == ROOT else f"{part.name} "
        yield from ((f"{prefix}metadata.{key}", text) for key, text in part.text_metadata.items())


def _verdict(components: Iterable[ComponentDifference], before: InspectReport, after: InspectReport) -> ResumeVerdict:
    different = [component.name for component in components if not component.same]
    if different:
        names = ["the content" if name == ROOT else name for name in different]
        return ResumeVerdict(False, f"{_joined(names)} {'differ' if len(names) > 1 else 'differs'}")
    answers = {before.state.resume.answer, after.state.resume.answer}
    if answers == {Resumable.EXACTLY}:
        return ResumeVerdict(True, "same content, with everything that resuming needs")
    if answers & {Resumable.NO, Resumable.WARM_START}:
        return ResumeVerdict(None, "same content, but training cannot resume from it")
    lacks = _joined([role.value for role in before.state.resume.lacks])
    return ResumeVerdict(None, f"same content, but no {lacks}, which resuming needs as well")


def _joined(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _side_json(report: InspectReport) -> dict[str, object]:
    return {
        "path": report.path,
        "form": report.form,
        "identity": report.identity,
        "metadata": metadata_json(report.metadata),
    }
