"""Which variables a running piece of code may still read before it replaces them, from its bytecode.

A variable that is dead at some moment, such as the `loss` of the last step, cannot influence what comes. The analysis
is the usual one of compilers: backwards over the graph of instructions until nothing changes.
"""

from __future__ import annotations

import dis
import itertools
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import NamedTuple

__all__ = ["live_names"]

_SCOPES = ("FAST", "NAME", "GLOBAL", "DEREF", "CLASSDEREF")
_ENDS = ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "JUMP_FORWARD", "JUMP_ABSOLUTE")
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


def live_names(code: CodeType, offset: int) -> frozenset[str]:
    """Return the names that may be read before they are assigned, once the instruction at an offset is done.

    A variable that inner functions assign is live if one of them may read it first, whatever the code around them
    does: what they do when they are called is not followed further.

    Args:
        code: The code of a function or module.
        offset: Offset of the instruction, as in `frame.f_lasti`.
    """
    graph = _graph(code)
    at = max((start for start in graph.after if start <= offset), default=None)
    if at is None:
        return graph.names
    flow = frozenset().union(*(graph.live[follower] for follower in graph.after[at]))
    inner = _inner(code)
    own = graph.names | frozenset(code.co_cellvars)
    return (flow - inner.assigned) | (inner.read_first & own)


class _Names(NamedTuple):
    """Names of variables of enclosing scopes.

    Attributes:
        read_first: Those that may be read before they are assigned.
        assigned: Those that are assigned.
    """

    read_first: frozenset[str]
    assigned: frozenset[str]


@lru_cache(maxsize=1024)
def _inner(code: CodeType) -> _Names:
    """Return what the functions and classes that are defined in a piece of code do with the variables around them."""
    read_first: set[str] = set()
    assigned: set[str] = set()
    for part in code.co_consts:
        if isinstance(part, CodeType):
            graph, deeper = _graph(part), _inner(part)
            outside = frozenset(part.co_freevars) | frozenset(part.co_names)
            read_first |= (graph.live[min(graph.after)] & outside) | deeper.read_first
            assigned |= graph.assigned_outside | deeper.assigned
    return _Names(frozenset(read_first), frozenset(assigned))


class _Graph:
    """The instructions of a piece of code.

    Attributes:
        after: Offsets of the instructions that may follow each instruction.
        live: Names that are live before each instruction.
        names: All names that it uses.
        assigned_outside: Names of enclosing scopes that it assigns.
    """

    def __init__(self, code: CodeType) -> None:
        bytecode = dis.Bytecode(code)
        instructions = list(bytecode)
        self.after = _followers(bytecode, instructions)
        effects = {one.offset: list(_effects(one)) for one in instructions}
        self.names = frozenset(name for found in effects.values() for _, name in found)
        assigning = [one for one in instructions if one.opname in ("STORE_GLOBAL", "STORE_DEREF")]
        self.assigned_outside = frozenset(one.argval for one in assigning) - frozenset(code.co_cellvars)
        self.live: dict[int, frozenset[str]] = dict.fromkeys(self.after, frozenset())
        changed = True
        while changed:
            changed = False
            for offset in reversed(self.live):
                live = set().union(*(self.live[follower] for follower in self.after[offset]))
                for reads, name in reversed(effects[offset]):
                    (live.add if reads else live.discard)(name)
                if live != self.live[offset]:
                    self.live[offset] = frozenset(live)
                    changed = True


@lru_cache(maxsize=256)
def _graph(code: CodeType) -> _Graph:
    return _Graph(code)


def _followers(bytecode: dis.Bytecode, instructions: list[dis.Instruction]) -> dict[int, list[int]]:
    offsets = [one.offset for one in instructions]
    after: dict[int, list[int]] = {}
    for position, one in enumerate(instructions):
        following = []
        if not one.opname.startswith(_ENDS) and not one.opname.startswith("JUMP_BACKWARD"):
            following += offsets[position + 1 : position + 2]
        if one.opcode in _JUMPS:
            following.append(one.argval)
        after[one.offset] = following
    for entry in getattr(bytecode, "exception_entries", ()):  # a handler may follow each instruction that it guards
        for offset in offsets:
            if entry.start <= offset < entry.end:
                after[offset].append(entry.target)
    return {offset: [one for one in following if one in after] for offset, following in after.items()}


def _effects(instruction: dis.Instruction) -> Iterator[tuple[bool, str]]:
    """Yield whether each name of an instruction is read (or else assigned), and the name, in order.

    Newer versions of Python have instructions for two names, such as `STORE_FAST_LOAD_FAST`.
    """
    words = instruction.opname.split("_")
    actions = [
        first != "STORE"
        for first, second in itertools.pairwise(words)
        if first in ("LOAD", "STORE", "DELETE") and second in _SCOPES
    ]
    value = instruction.argval
    names = value if isinstance(value, tuple) else (value,)
    if len(actions) == len(names):
        yield from ((reads, name) for reads, name in zip(actions, names, strict=True) if isinstance(name, str))
