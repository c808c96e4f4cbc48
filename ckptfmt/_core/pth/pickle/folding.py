"""Calls that only spell something plain: a nested class, a type hint, a partial function. They are read as that.

Protocols up to 3 write a nested class as `getattr(Outer, "Inner")`, and every protocol `Optional[int]` as
`operator.getitem(typing.Union, (int, type(None)))`. In these forms alone the functions may be called, and whatever they
name is judged like any other name. In any other form the call is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from ckptfmt._core.pth.names.kinds import GENERIC
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.nodes import Global, Record

__all__ = ["fold", "is_function"]

_HINT, _UNION, _PARTIAL = Global("types", "GenericAlias"), Global("types", "UnionType"), Global("functools", "partial")
_CONSTANT_TYPES = {"builtins.Ellipsis": "EllipsisType", "builtins.NotImplemented": "NotImplementedType"}


def fold(callee: Global, args: tuple[object, ...]) -> Global | Record | None:
    """Return what a call spells, as a name or an object; None if it spells nothing plain, or is another call."""
    form = _FORMS.get(canonical(callee))
    return form(args) if form is not None else None


def is_function(node: object) -> bool:
    """Say whether a node can be the function of a partial one: a name, or a partial function itself."""
    return isinstance(node, Global) or (isinstance(node, Record) and node.callee == _PARTIAL)


def _attribute(args: tuple[object, ...]) -> Global | None:
    """`getattr(Outer, "Inner")`: a name with a dot in it."""
    match args:
        case (Global(module, name), str(attribute)) if attribute.isidentifier() and not attribute.startswith("__"):
            return Global(module, f"{name}.{attribute}")
    return None


def _type_of(args: tuple[object, ...]) -> Global | None:
    """`type(None)`."""
    match args:
        case (None,):
            return Global("types", "NoneType")
        case (Global() as constant,) if canonical(constant) in _CONSTANT_TYPES:
            return Global("types", _CONSTANT_TYPES[canonical(constant)])
    return None


def _hint(args: tuple[object, ...]) -> Record | None:
    """`operator.getitem(typing.List, int)`."""
    match args:
        case (Global() as origin, parameters) if canonical(origin) in GENERIC:
            return Record(_HINT, (origin, parameters))
    return None


def _union(args: tuple[object, ...]) -> Record | None:
    """`functools.reduce(operator.or_, (int, str))`."""
    match args:
        case (Global() as function, tuple(types)) if canonical(function) == "operator.or_" and all(
            map(_is_type, types)
        ):
            return Record(_UNION, (types,))
    return None


def _is_type(node: object) -> bool:
    return isinstance(node, Global) or (isinstance(node, Record) and node.callee in (_HINT, _UNION))


def _partial(args: tuple[object, ...]) -> Record | None:
    """`functools.partial(function)`, its arguments in the state that follows."""
    return Record(_PARTIAL, args) if args and is_function(args[0]) else None


_FORMS: dict[str, Callable[[tuple[object, ...]], Global | Record | None]] = {
    "builtins.getattr": _attribute,
    "builtins.type": _type_of,
    "operator.getitem": _hint,
    "functools.reduce": _union,
    "functools.partial": _partial,
}
