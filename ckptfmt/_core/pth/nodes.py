"""What a pickle says, as inert data: nothing here stands for a live object, and nothing here acts.

Plain values (None, bool, int, float, str, bytes) are themselves, a list is a list and a tuple a tuple. All else is one
of the classes below. Nodes are compared by identity only, so that a graph that contains itself can do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DictNode", "Global", "Persistent", "Record", "SetNode", "describe"]


@dataclass(frozen=True, slots=True)
class Global:
    """A name: `pickle` would import the module and take its attribute; here it stays a name.

    Attributes:
        module: The module, as the pickle spells it.
        name: The attribute, with dots if it is an attribute of an attribute.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class DictNode:
    """A dict, as the pairs that were put into it, in order. Keys may stand there twice; the last one counts."""

    entries: list[tuple[object, object]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class SetNode:
    """A set or frozenset, as the elements that were put into it."""

    elements: list[object] = field(default_factory=list)
    frozen: bool = False


@dataclass(eq=False, slots=True)
class Record:
    """An object that the pickle asks to have made: what it would be made with, and nothing made.

    Attributes:
        callee: What would be called: the name of a class or function.
        args: Arguments by position.
        kwargs: Arguments by name, if there were any.
        states: What would be given to `__setstate__` or put into `__dict__` (BUILD), in order.
        entries: What would be set as items (SETITEM).
        elements: What would be appended (APPEND).
        added: What would be added as to a set (ADDITEMS).
    """

    callee: Global
    args: tuple[object, ...]
    kwargs: object = None
    states: list[object] = field(default_factory=list)
    entries: list[tuple[object, object]] = field(default_factory=list)
    elements: list[object] = field(default_factory=list)
    added: list[object] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """An object outside the pickle, by the identifier that the pickle gives it."""

    identifier: object


def describe(node: object) -> str:
    """Return what a node is, in words that hold nothing of the file's own but names."""
    match node:
        case Record(callee=callee):
            return f"an object of {callee}"
        case Global():
            return f"the name {node}"
        case DictNode():
            return "a dict"
        case SetNode():
            return "a frozenset" if node.frozen else "a set"
        case Persistent():
            return "a storage"
    return f"a {type(node).__name__}"
