"""A program's mutants: where in its syntax tree each fault is put, what it is called, and the module that it makes."""

from __future__ import annotations
import __future__

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from tests.mutants.operators import replacements

# The command line, texts of errors, names of types.
SKIPPED = {"main", "__init__", "Refused", "NeedsZstd", "Words", "Schema", "Sink", "Tensors"}
PATTERNS = {"DATE", "MINUTES", "SECONDS", "FRACTION", "OFFSET", "_is_name"}  # whose strings are regular expressions
CONTEXT = 48


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        name: The function (or name, at the top level) that has it, and the statement with the fault marked: it is the
            same wherever the statement moves.
        function: The function alone.
        lines: Lines of which one has to run for the fault to make a difference; None for what runs at import.
        number: Which statement of the module it is in.
        place: Where the fault is put.
        node: What is put there.
    """

    name: str
    function: str
    lines: range | None
    number: int
    place: _Place
    node: ast.AST


class _Place(NamedTuple):
    """A field of a node of the tree, and the position in it if it is a list."""

    parent: ast.AST
    field: str
    position: int | None

    def get(self) -> Any:
        value = getattr(self.parent, self.field)
        return value if self.position is None else value[self.position]

    def put(self, node: ast.AST) -> None:
        if self.position is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.position] = node


class Program:
    """A module's source, and everything that could be wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self._codes = [self._compiled(statement) for statement in self.tree.body]
        self.mutants = list(_numbered(self._all()))

    def module(self, mutant: Mutant | None = None) -> ModuleType:
        """Return the module with a fault, or as it is."""
        module = ModuleType("spec.minimal_reader")
        module.__file__ = str(self.path)
        codes = self._codes if mutant is None else [*self._codes]
        if mutant is not None:
            old = mutant.place.get()
            mutant.place.put(ast.fix_missing_locations(ast.copy_location(mutant.node, old)))
            try:
                codes[mutant.number] = self._compiled(self.tree.body[mutant.number])
            finally:
                mutant.place.put(old)
        for code in codes:
            exec(code, module.__dict__)
        return module

    def _compiled(self, statement: ast.stmt) -> CodeType:
        # The future import holds for the statements that follow it; each is compiled alone here.
        flags = __future__.annotations.compiler_flag
        code: CodeType = compile(ast.Module([statement], []), str(self.path), "exec", flags, dont_inherit=True)
        return code

    def _all(self) -> Iterator[Mutant]:
        for number, statement in enumerate(self.tree.body):
            self._number = number
            name = _name(statement)
            if isinstance(statement, ast.Import | ast.ImportFrom | ast.Try) or name in ("", *SKIPPED):
                continue
            yield from self._statement(statement, name, None)

    def _statement(self, statement: ast.stmt, function: str, lines: range | None) -> Iterator[Mutant]:
        """Every mutant of a statement and of those inside it."""
        inside = lines is not None
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            is_function = isinstance(statement, ast.FunctionDef)
            for inner in statement.body:
                path = function if _name(inner) in ("", function) else f"{function}.{_name(inner)}"
                if _name(inner) not in SKIPPED:
                    nested = isinstance(inner, ast.FunctionDef | ast.ClassDef)
                    yield from self._statement(inner, path if nested else function, range(1) if is_function else None)
            return
        own = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1) if inside else None
        blocks = [statement.body] if isinstance(statement, ast.If | ast.For | ast.While | ast.With | ast.Try) else []
        if blocks and own is not None:
            own = range(own.start, max(own.start + 1, blocks[0][0].lineno))
        for place in _places(statement):
            node = place.get()
            if isinstance(node, ast.stmt):
                yield from self._statement(node, function, lines)
            elif isinstance(node, ast.ExceptHandler):
                for inner in node.body:
                    yield from self._statement(inner, function, lines)
            else:
                yield from self._expression(place, statement, function, own)
        for place in _blocks_of(statement):
            yield from self._replace(place, place.get(), function, self._lines_of(place.get(), inside))

    def _lines_of(self, statement: ast.stmt, inside: bool) -> range | None:
        return range(statement.lineno, (statement.end_lineno or statement.lineno) + 1) if inside else None

    def _expression(self, place: _Place, statement: ast.stmt, function: str, lines: range | None) -> Iterator[Mutant]:
        node = place.get()
        if _is_text(place) or _is_type(node):
            return
        if isinstance(node, ast.Lambda):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        yield from self._replace(place, statement, function, lines)
        for inner in _places(node):
            yield from self._expression(inner, statement, function, lines)

    def _replace(self, place: _Place, shown: ast.stmt, function: str, lines: range | None) -> Iterator[Mutant]:
        old = place.get()
        before = _shown(shown)
        for node in replacements(old, pattern=function in PATTERNS):
            place.put(node)
            after = _shown(node if shown is old else shown)
            place.put(old)
            yield Mutant(f"{function}: {_difference(before, after)}", function, lines, self._number, place, node)


NOT_CHANGED = {"annotation", "args", "target", "targets", "returns", "decorator_list", "type", "ctx", "op", "ops"}


def _places(node: ast.AST) -> Iterator[_Place]:
    """Where the parts of a node stand, but for annotations and what is assigned to."""
    for field, value in ast.iter_fields(node):
        if field in NOT_CHANGED and not (field == "args" and isinstance(node, ast.Call)):
            continue
        if isinstance(value, ast.AST):
            yield _Place(node, field, None)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield _Place(node, field, position)


def _blocks_of(statement: ast.stmt) -> Iterator[_Place]:
    """Where the statements inside a statement stand, itself in its own block excluded."""
    for field in ("body", "orelse", "finalbody"):
        for position, _ in enumerate(getattr(statement, field, [])):
            yield _Place(statement, field, position)
    for handler in getattr(statement, "handlers", []):
        for position, _ in enumerate(handler.body):
            yield _Place(handler, "body", position)


def _is_text(place: _Place) -> bool:
    """Whether an expression is only for people: a docstring, or the message of an error."""
    node, parent = place.get(), place.parent
    if isinstance(node, ast.JoinedStr) or (isinstance(parent, ast.Expr) and isinstance(node, ast.Constant)):
        return True
    called = parent.func if isinstance(parent, ast.Call) else None
    message = {"must": 2, "Refused": 1, "NeedsZstd": 0, "OSError": 0, "_record": 3}
    return isinstance(called, ast.Name) and place.field == "args" and message.get(called.id) == place.position


def _is_type(node: ast.AST) -> bool:
    """Whether an expression is a generic type, such as `dict[str, Any]`."""
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in ("dict", "set")


def _name(statement: ast.stmt) -> str:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
            return ast.unparse(target)
        case _:
            return ""


def _shown(node: ast.AST) -> str:
    """The text of a node on one line, without its messages; of a compound statement the head alone."""
    match node:
        case ast.If() | ast.While():
            return f"if {ast.unparse(node.test)}:"
        case ast.For():
            return f"for {ast.unparse(node.target)} in {ast.unparse(node.iter)}:"
        case ast.comprehension():
            return ast.unparse(node).strip()
        case ast.Expr(value=ast.Call(func=ast.Name(id="must"), args=[condition, code, *_])):
            return f"must({ast.unparse(condition)}, {ast.unparse(code)})"
        case ast.Raise(exc=ast.Call(func=function, args=[code, *_])):
            return f"raise {ast.unparse(function)}({ast.unparse(code)})"
        case _:
            return " ".join(ast.unparse(node).split())


def _difference(before: str, after: str) -> str:
    """Mark in a text what became of a part of it: `x [<= -> <] 5`."""
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    while start > 0 and _joined(before, start):
        start -= 1
    while end > 0 and (_joined(before, len(before) - end) or _joined(after, len(after) - end)):
        end -= 1
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    head, tail = before[:start], before[len(before) - end :]
    head = head if len(head) <= CONTEXT else "..." + head[-CONTEXT:]
    tail = tail if len(tail) <= CONTEXT else tail[:CONTEXT] + "..."
    return f"{head}[{old} -> {new}]{tail}"


def _joined(text: str, position: int) -> bool:
    """Whether a cut here would go through a word or a number."""
    around = text[position - 1 : position + 1]
    return len(around) == 2 and all(character.isalnum() or character in "_<>=" for character in around)


def _numbered(mutants: Iterator[Mutant]) -> Iterator[Mutant]:
    """Give mutants whose names agree numbers; leave out those that are the program itself."""
    seen: Counter[str] = Counter()
    for mutant in mutants:
        seen[mutant.name] += 1
        count = seen[mutant.name]
        yield mutant if count == 1 else replace(mutant, name=f"{mutant.name} #{count}")
