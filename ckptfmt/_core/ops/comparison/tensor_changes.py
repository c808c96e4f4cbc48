"""Which tensors of two files differ: added, removed, renamed, reshaped, retyped, changed."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import chain

from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.digest import digest
from ckptfmt._core.interop.base import ComponentSource, TensorInfo
from ckptfmt._core.ops.comparison.distance import ValueDifference
from ckptfmt._core.ops.progress import Report, Tally
from ckptfmt._core.system.batches import batches
from ckptfmt._core.system.workers import in_order

__all__ = ["Change", "Pair", "TensorChange", "compare_tensors"]

Pair = tuple[ComponentSource | None, ComponentSource | None]
"""A component of the first file and of the second one, where one is."""


class Change(StrEnum):
    """How a tensor differs."""

    ADDED = "added"
    """It is in the second file only."""
    REMOVED = "removed"
    """It is in the first file only."""
    RENAMED = "renamed"
    """Its data, dtype and shape are equal, and its name or component is another."""
    RESHAPED = "reshaped"
    """It has another shape, and possibly another dtype."""
    RETYPED = "retyped"
    """It has another dtype."""
    CHANGED = "changed"
    """Its data are others."""


@dataclass(frozen=True)
class TensorChange:
    """A tensor that differs.

    Attributes:
        change: Kind of change.
        before: The tensor in the first file; None if it was added.
        after: The tensor in the second file; None if it was removed.
        values: How far apart the values are; None unless they were compared.
        parameter: Full name of the parameter that it is kept for, if it belongs to an optimizer that records names.
    """

    change: Change
    before: TensorInfo | None
    after: TensorInfo | None
    values: ValueDifference | None = None
    parameter: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return it in JSON.

        Keys: `change`, `before` and `after` (see `TensorInfo.to_json`; null if there is none), `values` (see
        `ValueDifference.to_json`; null unless they were compared), `parameter` (or null).
        """
        return {
            "change": self.change.value,
            "before": None if self.before is None else self.before.to_json(),
            "after": None if self.after is None else self.after.to_json(),
            "values": None if self.values is None else self.values.to_json(),
            "parameter": self.parameter,
        }


def compare_tensors(
    pairs: Sequence[Pair], *, values: bool = False, progress: Report | None = None
) -> tuple[TensorChange, ...]:
    """Return the tensors that differ, in the order of the files; those that are farthest apart first, if `values`.

    Those of a component that is on one side only are not among them, except as renamed.

    Args:
        pairs: The components.
        values: Read those that differ, and say how far they are apart.
        progress: Takes how far the reading is.

    Raises:
        CkptfmtError: A tensor cannot be read.
    """
    parts = ({part.name: part for part, _ in pairs if part}, {part.name: part for _, part in pairs if part})
    found = [change for pair in pairs for change in _compare(*pair)]
    doubtful = [change for change in found if change.change is Change.CHANGED]
    alone = [change for change in found if change.change in (Change.ADDED, Change.REMOVED)]
    if not {Change.ADDED, Change.REMOVED} <= {change.change for change in alone}:
        alone = []  # nothing can have been renamed
    digests = _Digests(parts, [*doubtful, *alone], progress)
    equal = {id(change) for change in doubtful if digests.of(change.before, 0) == digests.of(change.after, 1)}
    found = list(_renamed([change for change in found if id(change) not in equal], _places(pairs), digests))
    return tuple(_with_values(found, parts, progress) if values else found)


def _compare(one: ComponentSource | None, other: ComponentSource | None) -> Iterator[TensorChange]:
    """Yield what names, dtypes and shapes show; what seems equal is `CHANGED` until its digests are compared."""
    before = {} if one is None else one.tensor_infos
    after = {} if other is None else other.tensor_infos
    if one is not None and other is not None and one.identity is not None and one.identity == other.identity:
        return
    for name, info in before.items():
        found = after.get(name)
        if found is None:
            yield TensorChange(Change.REMOVED, info, None)
        elif info.shape != found.shape:
            yield TensorChange(Change.RESHAPED, info, found)
        elif info.dtype != found.dtype:
            yield TensorChange(Change.RETYPED, info, found)
        elif info.nbytes:
            yield TensorChange(Change.CHANGED, info, found)
    for name, info in after.items():
        if name not in before:
            yield TensorChange(Change.ADDED, None, info)


def _renamed(found: Iterable[TensorChange], places: _Places, digests: _Digests) -> Iterator[TensorChange]:
    """Yield the changes, with what was removed under one name and added under another one as renamed."""
    found = list(found)
    removed: dict[tuple[object, ...], deque[TensorChange]] = defaultdict(deque)
    for change in found:
        if change.before is not None and change.change is Change.REMOVED and digests.has(change.before, 0):
            removed[_content(change.before, 0, places, digests)].append(change)
    renamed: dict[int, TensorInfo] = {}
    for change in found:
        if change.after is not None and change.change is Change.ADDED and digests.has(change.after, 1):
            candidates = removed[_content(change.after, 1, places, digests)]
            if candidates:
                renamed[id(candidates.popleft())] = change.after
    targets = {id(info) for info in renamed.values()}
    for change in found:
        if id(change) in renamed:
            yield TensorChange(Change.RENAMED, change.before, renamed[id(change)])
        elif id(change.after) not in targets and not _is_of_a_lone_component(change, places):
            yield change


def _is_of_a_lone_component(change: TensorChange, places: _Places) -> bool:
    """Say whether it was added or removed with its whole component, which is reported instead."""
    sides = ((change.before, places[0]), (change.after, places[1]))
    return all(info is None or place[info.component] == _NOWHERE for info, place in sides)


_Places = tuple[dict[str, int], dict[str, int]]
"""Of each side, which pair a component belongs to; those without a counterpart all have the same place."""


def _places(pairs: Sequence[Pair]) -> _Places:
    before = {one.name: number if other else _NOWHERE for number, (one, other) in enumerate(pairs) if one}
    after = {other.name: number if one else _NOWHERE for number, (one, other) in enumerate(pairs) if other}
    return before, after


_NOWHERE = -1


def _content(info: TensorInfo, side: int, places: _Places, digests: _Digests) -> tuple[object, ...]:
    return places[side][info.component], info.dtype, info.shape, digests.of(info, side)


_Sides = tuple[dict[str, ComponentSource], dict[str, ComponentSource]]
_Key = tuple[int, str, str]
"""A tensor: its side, its component, its name."""

_BATCH_BYTES = 1 << 20


class _Digests:
    """The digests of tensors; those that have to be read are, side by side and once."""

    def __init__(
        self,
        parts: _Sides,
        changes: Iterable[TensorChange],
        progress: Report | None,
    ) -> None:
        wanted = {
            (side, info.component, info.name): info
            for change in changes
            for side, info in enumerate((change.before, change.after))
            if info is not None and info.nbytes
        }
        unknown = {key: info for key, info in wanted.items() if not parts[key[0]][key[1]].has_digests}
        tally = Tally(sum(info.nbytes for info in unknown.values()), progress)

        def tensor(key: _Key) -> TensorSource:
            side, component, name = key
            return parts[side][component].tensors[name]

        def digests(keys: list[_Key]) -> list[bytes]:
            return [_read_digests(key[-1], tensor(key), tally) for key in keys]

        # To hand a digest that is known from thread to thread takes longer than to look it up.
        self._digests = {key: tensor(key).digests() for key in wanted if key not in unknown}
        jobs = batches(unknown, lambda key: unknown[key].nbytes, _BATCH_BYTES)
        read = in_order(digests, jobs, stop=tally.stop)
        self._digests |= zip(unknown, chain.from_iterable(read), strict=True)

    def has(self, info: TensorInfo, side: int) -> bool:
        """Say whether the digest of a tensor is known."""
        return (side, info.component, info.name) in self._digests

    def of(self, info: TensorInfo | None, side: int) -> bytes:
        """Return the digest of a tensor that is known."""
        assert info is not None  # a change that is looked at here has this side
        return self._digests[side, info.component, info.name]


def _read_digests(name: str, tensor: TensorSource, tally: Tally) -> bytes:
    found = bytearray()
    for chunk in tensor.chunks():
        data = chunk()
        found += digest(data)
        tally.add(name, len(data))
    return bytes(found)


def _with_values(
    found: Sequence[TensorChange],
    parts: _Sides,
    progress: Report | None,
) -> list[TensorChange]:
    from ckptfmt._core.ops.comparison.values import compare_values  # NumPy, which digests do without

    compared = [item for item in found if item.change in (Change.CHANGED, Change.RETYPED)]
    tally = Tally(sum(item.before.nbytes for item in compared if item.before is not None), progress)

    def compare(change: TensorChange) -> TensorChange:
        before, after = change.before, change.after
        if change.change not in (Change.CHANGED, Change.RETYPED) or before is None or after is None:
            return change
        one, other = (parts[side][info.component].tensors[info.name] for side, info in enumerate((before, after)))
        values = compare_values(one, other, partial(tally.add, before.name))
        return replace(change, values=values)

    return sorted(
        in_order(compare, found, stop=tally.stop), key=lambda item: -(item.values.max_abs if item.values else -math.inf)
    )
