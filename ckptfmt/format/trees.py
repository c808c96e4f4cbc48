"""What a component's tree has to be beyond well-formed MessagePack: references and typed values (spec 11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from typing import TypeGuard

from ckptfmt.errors import Problem
from ckptfmt.format.packing import TensorRef, Typed
from ckptfmt.format.tensors import DTYPES, TensorEntry

COMPLEX_PARTS = {"C128": "F64", "C32": "F16"}  # 11.6: dtype of the real tensor that expresses each
SPARSE_COO = "torch.sparse_coo"
SPARSE_COMPRESSED = ("torch.sparse_csr", "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc")
NUMPY_ARRAY = "numpy.ndarray"
NUMPY_SCALAR = "numpy.scalar"

_SCALAR_BYTES = {name: dtype.bits // 8 for name, dtype in DTYPES.items() if dtype.bits >= 8} | {"C128": 16}
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
        match node:
            case TensorRef():
                yield node
            case Typed(_, value):
                yield node
                pending.append(value)
            case dict():
                pending.extend(node.values())
            case list() | tuple():
                pending.extend(node)


def _typed_fault(typed: Typed, tensors: Mapping[str, TensorEntry]) -> str | None:
    """Return what is wrong with a typed value, None if nothing is or the name is unknown."""
    value = typed.value
    if typed.name in COMPLEX_PARTS:
        part = COMPLEX_PARTS[typed.name]
        entry = tensors.get(value.name) if isinstance(value, TensorRef) else None
        fits = entry is not None and entry.dtype == part and entry.shape[-1:] == (2,)
        return None if fits else f"is not an {part} tensor whose last dimension is 2"
    check = _CHECKS.get(typed.name)
    return check(value) if check is not None else None


def _frozenset(value: object) -> str | None:
    return None if isinstance(value, set) else "is not a set"


def _iso(parse: Callable[[str], date | time]) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        try:
            # Python reads more spellings of ISO 8601 than it writes; only one is in the file.
            exact = type(value) is str and parse(value).isoformat() == value
        except ValueError:
            exact = False
        return None if exact else "is not ISO 8601 text"

    return check


def _timedelta(value: object) -> str | None:
    if not _are_ints(value) or len(value) != 3:
        return "is not an array of days, seconds and microseconds"
    days, seconds, micros = value
    within = abs(days) <= 999_999_999 and 0 <= seconds < _SECONDS_PER_DAY and 0 <= micros < _MICROSECONDS_PER_SECOND
    return None if within else "is not normalized"


def _numpy_array(value: object) -> str | None:
    plain = isinstance(value, TensorRef) or (isinstance(value, Typed) and value.name == "C128")
    return None if plain else "is not a tensor"


def _numpy_scalar(value: object) -> str | None:
    match value:
        case [str(dtype), bytes(data)] if _SCALAR_BYTES.get(dtype) == len(data):
            return None
    return "is not an array of a dtype and the bytes of one element"


def _sizes(value: object) -> str | None:
    return None if _are_ints(value) and min(value, default=0) >= 0 else "is not an array of sizes"


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value else "is not a name"


def _sparse(*tensor_keys: str, flags: tuple[str, ...] = ()) -> Callable[[object], str | None]:
    keys = [*tensor_keys, "size", *flags]

    def check(value: object) -> str | None:
        if not isinstance(value, dict) or list(value) != keys:
            return f"is not a map of {', '.join(keys)}"
        tensors = all(_is_tensor(value[key]) for key in tensor_keys)
        if not tensors or _sizes(value["size"]) or not all(isinstance(value[flag], bool) for flag in flags):
            return f"has {', '.join(keys)} of the wrong types"
        return None

    return check


def _is_tensor(value: object) -> bool:
    return isinstance(value, TensorRef) or (isinstance(value, Typed) and value.name in COMPLEX_PARTS)


def _are_ints(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int for item in value)


_CHECKS: Mapping[str, Callable[[object], str | None]] = {
    "frozenset": _frozenset,
    "datetime": _iso(datetime.fromisoformat),
    "date": _iso(date.fromisoformat),
    "time": _iso(time.fromisoformat),
    "timedelta": _timedelta,
    NUMPY_ARRAY: _numpy_array,
    NUMPY_SCALAR: _numpy_scalar,
    "torch.Size": _sizes,
    "torch.dtype": _text,
    "torch.device": _text,
    SPARSE_COO: _sparse("indices", "values", flags=("is_coalesced",)),
    **{name: _sparse("compressed_indices", "plain_indices", "values") for name in SPARSE_COMPRESSED},
}
