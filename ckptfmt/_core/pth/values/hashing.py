"""What a key of a dict or an element of a set can be: what Python has a hash for."""

from __future__ import annotations

from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import DictNode, Record, SetNode, describe
from ckptfmt.errors import ForeignFileError

__all__ = ["require_hashable"]

_WITHOUT_HASH = frozenset(
    {
        *("builtins.list", "builtins.dict", "builtins.set", "builtins.bytearray"),
        *("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "collections.deque"),
        *("argparse.Namespace", "types.SimpleNamespace"),
        *("collections.UserDict", "collections.UserList", "collections.ChainMap"),
        *("array.array", "array._array_reconstructor"),
        *("numpy._core.multiarray._reconstruct", "numpy._core.numeric._frombuffer", "numpy.ma._mareconstruct"),
    }
)


def require_hashable(node: object) -> None:
    """Refuse what can be no key. An object of a class that is not known may be one.

    Raises:
        ForeignFileError: It can be none.
    """
    if isinstance(node, str | int | float | bytes) or node is None:
        return
    pending, seen = [node], set()
    while pending:
        part = pending.pop()
        if isinstance(part, tuple):
            if id(part) not in seen:
                seen.add(id(part))
                pending += part
        elif (
            isinstance(part, list | DictNode)
            or (isinstance(part, SetNode) and not part.frozen)
            or (isinstance(part, Record) and canonical(part.callee) in _WITHOUT_HASH)
        ):
            raise ForeignFileError(f"{describe(part)} as a key, or as an element of a set, which it cannot be")
