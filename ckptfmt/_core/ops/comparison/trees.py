"""Where two trees differ, leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptfmt._core.format.index import ROOT
from ckptfmt._core.format.packing import LEAVES, TensorRef, Typed
from ckptfmt._core.format.trees import PER_RANK
from ckptfmt._core.ops.report_json import integer_json, tree_json

__all__ = ["ABSENT", "LeafChange", "compare_trees", "is_same_value"]


_QUICK = LEAVES | {TensorRef}

# How a path continues in a mapping, in a list, and in a value that differs between ranks.
_ITEM, _ELEMENT, _RANK = ".{}", "[{}]", " of rank {}"


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""The value of a leaf in the file that does not contain it."""


@dataclass(frozen=True)
class LeafChange:
    """A value that differs, or that only one file contains.

    Attributes:
        component: Name of the component.
        path: Its path in the tree, such as `param_groups[0].lr`.
        before: The value in the first file; `ABSENT` if there is none.
        after: The value in the second file; likewise.
    """

    component: str
    path: str
    before: object
    after: object

    @property
    def place(self) -> str:
        """The path, after the name of the component if it has one."""
        if self.component == ROOT:
            return self.path
        return f"{self.component}{'.' if self.path and self.path[0] not in '[ ' else ''}{self.path}"

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `component`, `path`, `before`, `after` (see `tree_json`); absent values have no key."""
        sides = {"before": self.before, "after": self.after}
        values = {name: tree_json(value) for name, value in sides.items() if value is not ABSENT}
        return {"component": self.component, "path": self.path, **values}


def compare_trees(component: str, before: object, after: object) -> Iterator[LeafChange]:
    """Yield where two trees differ, in the order of the first.

    Tensors are compared elsewhere: a reference to one counts as different only from another value, or from a
    reference to a tensor of another name. The order of the keys of a mapping does not matter.
    """
    yield from _compare(component, "", before, after)


def _compare(component: str, path: str, before: Any, after: Any) -> Iterator[LeafChange]:
    match before, after:
        case (dict(), dict()):
            yield from _compare_items(component, path, before, after)
        case (list(), list()) | (tuple(), tuple()):
            one, other = dict(enumerate(before)), dict(enumerate(after))
            yield from _compare_items(component, path, one, other, _ELEMENT)
        case (Typed(name, list(inner)), Typed(other, list(others))) if name == other == PER_RANK:
            one, other_one = dict(enumerate(inner)), dict(enumerate(others))
            yield from _compare_items(component, path, one, other_one, _RANK)
        case (Typed(name, inner), Typed(other, others)) if name == other:
            yield from _compare(component, path, inner, others)
        case _ if not is_same_value(before, after) and not _is_tensor_on_one_side_only(before, after):
            yield LeafChange(component, path, before, after)


def _compare_items(
    component: str, path: str, before: Mapping[Any, object], after: Mapping[Any, object], form: str = _ITEM
) -> Iterator[LeafChange]:
    for key in (*before, *(key for key in after if key not in before)):
        one, other = before.get(key, ABSENT), after.get(key, ABSENT)
        if type(one) in _QUICK and is_same_value(one, other):  # nearly all: they need no place
            continue
        place = path + (form if path or form != ".{}" else "{}").format(
            integer_json(key) if isinstance(key, int) else key if isinstance(key, str) else repr(key)
        )
        yield from _compare(component, place, one, other)


def _is_tensor_on_one_side_only(before: object, after: object) -> bool:
    """Say whether a tensor was added or removed, which is reported as such."""
    return (before is ABSENT and _has_only_tensors(after)) or (after is ABSENT and _has_only_tensors(before))


def _has_only_tensors(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(map(_has_only_tensors, value.values()))
    return isinstance(value, TensorRef)


def is_same_value(one: object, other: object) -> bool:
    """Say whether two values are the same, type and all; a NaN is the same as another."""
    if type(one) is not type(other):
        return False
    return bool(one == other) or (one != one and other != other)
