"""Small faults that an implementer could make, put into a program one at a time.

Each operator takes a node of the syntax tree and yields what could stand in its place: a check that is missing, weaker
or stricter, a limit one off, a table that lacks an entry, a loop that skips an element, bytes in the wrong order.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from types import EllipsisType
from typing import TypeVar

T = TypeVar("T")
Constant = str | bytes | bool | int | float | complex | EllipsisType | None

OTHER = "another"  # in place of a word of which nothing closer is known

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE,),
    ast.LtE: (ast.Lt,),
    ast.Gt: (ast.GtE,),
    ast.GtE: (ast.Gt,),
    ast.Eq: (ast.LtE, ast.GtE),
    ast.NotEq: (ast.Lt, ast.Gt),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
FUNCTIONS = {"any": "all", "all": "any", "min": "max", "max": "min", "sorted": "list", "set": "list", "abs": "int"}
PREDICATES = ("is", "_is", "_are", "_holds", "any", "all")
BYTE_ORDERS = {"little": "big", "big": "little"}
NEIGHBOURS = ",/:@[^`{"  # next to the characters that names may have


def replacements(node: ast.AST, *, pattern: bool = False) -> Iterator[ast.AST]:
    """Yield every faulty node that could stand in place of one. `pattern`: a string is a regular expression."""
    match node:
        case ast.Compare():
            yield from _comparison(node)
        case ast.BoolOp():
            yield from _boolean(node)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.Constant():
            yield from (ast.Constant(value) for value in _constants(node.value, pattern))
        case ast.Dict():
            for i in range(len(node.keys)):
                yield ast.Dict(_without(node.keys, i), _without(node.values, i))
        case ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()) | ast.Set():
            for i in range(len(node.elts)):
                yield _changed(node, elts=_without(node.elts, i))
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            yield _changed(node, op=ARITHMETIC[type(node.op)]())
        case ast.AugAssign() if type(node.op) in ARITHMETIC:
            yield ast.Pass()
            yield _changed(node, op=ARITHMETIC[type(node.op)]())
        case ast.IfExp():
            yield node.body
            yield node.orelse
        case ast.If():
            yield from (_changed(node, test=ast.Constant(value)) for value in (True, False))
        case ast.Call():
            yield from _call(node)
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield ast.Pass()
        case ast.For() | ast.comprehension():
            yield from _loop(node)
        case ast.Continue():
            yield ast.Break()
        case ast.Slice():
            for part in ("lower", "upper", "step"):
                if getattr(node, part) is not None:
                    yield _changed(node, **{part: None})


def _changed(node: ast.AST, **fields: object) -> ast.AST:
    result = copy.copy(node)
    for name, value in fields.items():
        setattr(result, name, value)
    return result


def _without(items: Sequence[T], i: int) -> list[T]:
    return [*items[:i], *items[i + 1 :]]


def _comparison(node: ast.Compare) -> Iterator[ast.AST]:
    yield from (ast.Constant(value) for value in (True, False))
    if any(isinstance(it, ast.Constant) and isinstance(it.value, str) for it in [node.left, *node.comparators]):
        return  # nobody takes a word for a number
    for i, op in enumerate(node.ops):
        for other in COMPARISONS.get(type(op), ()):
            yield _changed(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
    if len(node.ops) > 1:  # one of two bounds is missing
        yield ast.Compare(node.left, node.ops[:-1], node.comparators[:-1])
        yield ast.Compare(node.comparators[0], node.ops[1:], node.comparators[1:])


def _boolean(node: ast.BoolOp) -> Iterator[ast.AST]:
    for i in range(len(node.values)):
        rest = _without(node.values, i)
        yield rest[0] if len(rest) == 1 else _changed(node, values=rest)
    yield _changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())


def _call(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in FUNCTIONS:
        yield _changed(node, func=ast.Name(FUNCTIONS[name], ast.Load()))
    if name.startswith(PREDICATES):
        yield from (ast.Constant(value) for value in (True, False))
    if name in ("filter", "map"):
        yield node.args[-1]
    for i in range(len(node.keywords)):
        yield _changed(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])
    if len(node.args) > 1 and not isinstance(node.args[-1], ast.Starred):
        yield _changed(node, args=node.args[:-1])


def _loop(node: ast.For | ast.comprehension) -> Iterator[ast.AST]:
    for lower, upper in ((ast.Constant(1), None), (None, ast.UnaryOp(ast.USub(), ast.Constant(1)))):
        every = ast.Call(ast.Name("list", ast.Load()), [node.iter], [])
        yield _changed(node, iter=ast.Subscript(every, ast.Slice(lower, upper, None), ast.Load()))
    if isinstance(node, ast.comprehension):
        for i in range(len(node.ifs)):
            yield _changed(node, ifs=_without(node.ifs, i))


def _constants(value: Constant, pattern: bool) -> Iterable[Constant]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value - 1, value + 1]
    if isinstance(value, bytes):
        return [value[:i] + bytes([value[i] ^ 1]) + value[i + 1 :] for i in range(len(value))]
    if not isinstance(value, str):
        return []
    if pattern:
        return filter(_compiles, (value[:i] + value[i + 1 :] for i in range(len(value))))
    if value in BYTE_ORDERS:
        return [BYTE_ORDERS[value]]
    if value[:1] in ("<", ">"):  # of struct
        return ["<>"[value[0] == "<"] + value[1:]]
    words = value.split()
    if len(words) > 1:
        return [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    if len(value) > 40:  # a set of characters
        return [*(value.replace(character, "") for character in value), *(value + more for more in NEIGHBOURS)]
    return [OTHER]


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
