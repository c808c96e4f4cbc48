"""Fields of a saved mapping, read strictly: each one present, of its type, and no unknown one.

The component `progress` follows the program, not the specification: another version saves other fields. One that is
missing or unknown may decide which batches come next, so it is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ckptfmt.errors import MismatchError

__all__ = ["fields", "list_of", "mapping_of", "pairs_of", "unfit"]

K = TypeVar("K")
V = TypeVar("V")


def fields(tree: object, path: str, kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Return a mapping that has exactly the given fields.

    Args:
        tree: The saved value.
        path: Its path in the checkpoint, such as `progress.loader`.
        kinds: Names of the fields, and their types.

    Raises:
        MismatchError: A field is missing, unknown or of another type.
    """
    found = mapping_of(tree, path, object)
    for name in kinds:
        if name not in found:
            raise unfit(path, f"lacks {name!r}")
    for name, value in found.items():
        if name not in kinds:
            raise unfit(path, f"has an unknown field {name!r}")
        _require(value, f"{path}.{name}", kinds[name])
    return found


def mapping_of(tree: object, path: str, kind: type[V]) -> dict[str, V]:
    """Return a mapping of text to values of a type; see `fields`."""
    if not isinstance(tree, dict):
        raise _is_none_of(tree, path, dict)
    for name, value in tree.items():
        _require(name, f"a key of {path}", str)
        _require(value, f"{path}.{name}", kind)
    return dict(tree)


def list_of(tree: object, path: str, kind: type[V]) -> list[V]:
    """Return a list of values of a type; see `fields`."""
    if not isinstance(tree, list):
        raise _is_none_of(tree, path, list)
    for index, value in enumerate(tree):
        _require(value, f"{path}[{index}]", kind)
    return list(tree)


def pairs_of(tree: object, path: str, key: type[K], value: type[V]) -> dict[K, V]:
    """Return the pairs of a list, as a mapping; see `fields`."""
    pairs = list_of(tree, path, list)
    for index, pair in enumerate(pairs):
        if len(pair) != 2:
            raise unfit(f"{path}[{index}]", f"has {len(pair)} items instead of 2")
        _require(pair[0], f"{path}[{index}][0]", key)
        _require(pair[1], f"{path}[{index}][1]", value)
    return {pair[0]: pair[1] for pair in pairs}


def unfit(path: str, found: str) -> MismatchError:
    """Return the error for a saved value that this version does not save in this form."""
    return MismatchError(
        "the position in the run cannot be restored",
        [
            f"{path} {found}: another version of ckptfmt saved it; resume with that version, or start the unfinished "
            "epoch over with allow_mismatch=['progress']"
        ],
    )


def _require(value: object, path: str, kind: type | tuple[type, ...]) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # A bool is an int to Python, but no count.
    if not isinstance(value, kinds) or (isinstance(value, bool) and not {bool, object} & set(kinds)):
        raise _is_none_of(value, path, *kinds)


def _is_none_of(value: object, path: str, *kinds: type) -> MismatchError:
    expected = " or ".join(kind.__name__ for kind in kinds)
    return unfit(path, f"is of type {type(value).__name__} instead of {expected}")
