"""What a component's tree has to be beyond well-formed MessagePack: references and typed values (spec 11)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, TypeGuard

from ckptfmt._core.format.dtypes import COMPLEX_PARTS, ELEMENTS
from ckptfmt._core.format.packing import LEAVES, TensorRef, Typed
from ckptfmt._core.format.sparse import SPARSE, are_sizes, sparse_fault
from ckptfmt._core.format.tensors import TensorEntry
from ckptfmt.errors import Problem

NUMPY_ARRAY = "numpy.ndarray"
NUMPY_SCALAR = "numpy.scalar"
PER_RANK = "per_rank"

_SCALAR_BYTES = {name: dtype.bits // 8 for name, dtype in ELEMENTS.items() if dtype.numpy is not None}
_MICROSECONDS_PER_SECOND = 1_000_000
_SECONDS_PER_DAY = 86_400


def validate_tree(tree: object, tensors: Mapping[str, TensorEntry], member: str) -> list[Problem]:
    """Return every broken reference (11.2) and every typed value that is not as the table says (11.8).

    Args:
        tree: What the msgpack member decodes to.
        tensors: The component's tensors by name.
        member: Name of the msgpack member, for the messages.
    """
    problems: list[Problem] = []
    referred: set[str] = set()
    for node in walk(tree):
        if isinstance(node, TensorRef):
            if node.name not in tensors:
                message = f"it refers to a tensor {node.name[:200]!r} that the component does not have"
                problems.append(Problem("tree-reference", message, member=member, tensor=node.name))
            referred.add(node.name)
        elif isinstance(node, Typed):
            fault = _typed_fault(node, tensors)
            if fault is not None:
                problems.append(Problem("typed-value", f"a {node.name} value {fault}", member=member))
    for name in tensors.keys() - referred:
        problems.append(Problem("tree-unreferenced", "nothing in the tree refers to it", member=member, tensor=name))
    return problems


def walk(tree: object) -> Iterator[object]:
    """Yield every value of the tree that can hold another, or is a reference: containers, Typed, TensorRef."""
    pending = [tree]
    while pending:
        node = pending.pop()
        kind = type(node)
        if kind is TensorRef:
            yield node
            continue
        if kind in LEAVES:
            continue
        match node:
            case Typed(_, value):
                yield node
                pending.append(value)
            case dict():
                pending.extend(node.values())
            case list() | tuple():
                pending.extend(node)


def replace_references(tree: Any, value_of: Callable[[str], object]) -> Any:
    """Return a copy of a tree in which each reference to a tensor is replaced.

    Args:
        tree: The tree.
        value_of: Returns what takes the place of the reference to the tensor of a name.
    """
    match tree:
        case TensorRef(name):
            return value_of(name)
        case Typed(name, value):
            return Typed(name, replace_references(value, value_of))
        case dict():
            return {key: replace_references(value, value_of) for key, value in tree.items()}
        case list() | tuple():
            return type(tree)(replace_references(value, value_of) for value in tree)
    return tree


def _typed_fault(typed: Typed, tensors: Mapping[str, TensorEntry]) -> str | None:
    """Return what is wrong with a typed value, None if nothing is or the name is unknown."""
    value = typed.value
    if typed.name in COMPLEX_PARTS:
        part = COMPLEX_PARTS[typed.name]
        entry = tensors.get(value.name) if isinstance(value, TensorRef) else None
        fits = entry is not None and entry.dtype == part and entry.shape[-1:] == (2,)
        return None if fits else f"is not an {part} tensor whose last dimension is 2"
    if typed.name == NUMPY_ARRAY:
        fits = _is_tensor(value, tensors, _SCALAR_BYTES.keys()) or (isinstance(value, Typed) and value.name == "C128")
        return None if fits else "is not a tensor of a dtype that NumPy has"
    if typed.name in SPARSE:
        return sparse_fault(typed, tensors)
    check = _CHECKS.get(typed.name)
    return check(value) if check is not None else None


def _frozenset(value: object) -> str | None:
    return None if isinstance(value, set) else "is not a set"


def _iso(parse: Callable[[str], date | time]) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        try:
            moment = parse(value) if isinstance(value, str) else None
        except ValueError:
            moment = None
        # Python reads more spellings of ISO 8601 than it writes; the one that it writes is the spec's.
        if moment is None or moment.isoformat() != value:
            return "is not text in the one form for it"
        offset = moment.utcoffset() if isinstance(moment, datetime | time) else None
        if offset is not None and offset.microseconds:
            return "has an offset from UTC that is not in whole seconds"
        return "is in UTC, and no timestamp" if offset == timedelta(0) and isinstance(moment, datetime) else None

    return check


def _timedelta(value: object) -> str | None:
    if not _are_ints(value) or len(value) != 3:
        return "is not an array of days, seconds and microseconds"
    days, seconds, micros = value
    within = abs(days) <= 999_999_999 and 0 <= seconds < _SECONDS_PER_DAY and 0 <= micros < _MICROSECONDS_PER_SECOND
    return None if within else "is not normalized"


def _numpy_scalar(value: object) -> str | None:
    match value if isinstance(value, list) else None:  # a pattern of a list would take a tuple as well
        case ["BOOL", bytes(data)]:
            return None if data in (b"\0", b"\1") else "is neither 0 nor 1"
        case [str(dtype), bytes(data)] if _SCALAR_BYTES.get(dtype) == len(data):
            return None
    return "is not an array of a dtype and the bytes of one element"


def _sizes(value: object) -> str | None:
    return None if are_sizes(value) else "is not an array of sizes"


def _name(form: str) -> Callable[[object], str | None]:
    return lambda value: None if isinstance(value, str) and re.fullmatch(form, value) else "is not a name"


def _is_tensor(value: object, tensors: Mapping[str, TensorEntry], dtypes: Collection[str]) -> bool:
    return isinstance(value, TensorRef) and value.name in tensors and tensors[value.name].dtype in dtypes


def _per_rank(value: object) -> str | None:
    if not isinstance(value, list) or len(value) < 2:
        return "is not an array of two values or more"
    nested = any(isinstance(node, Typed) and node.name == PER_RANK for node in walk(value))
    return "holds another one" if nested else None


def _are_ints(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int for item in value)


_CHECKS: Mapping[str, Callable[[object], str | None]] = {
    "frozenset": _frozenset,
    "datetime": _iso(datetime.fromisoformat),
    "date": _iso(date.fromisoformat),
    "time": _iso(time.fromisoformat),
    "timedelta": _timedelta,
    NUMPY_SCALAR: _numpy_scalar,
    PER_RANK: _per_rank,
    "torch.Size": _sizes,
    "torch.dtype": _name(r"[A-Za-z_][A-Za-z0-9_]*"),
    "torch.device": _name(r"[A-Za-z_][A-Za-z0-9_]*(:(0|[1-9][0-9]*))?"),
}
