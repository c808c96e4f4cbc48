"""The stack and memo of a pickle machine that makes nothing: each opcode is a method, which leaves inert nodes.

Where `pickle` would import or call something, a `Global` or `Record` is put on the stack, which says what would have
happened. Nothing that comes from the file is hashed but numbers of memo entries and names.
"""

from __future__ import annotations

import codecs
import struct
from dataclasses import dataclass, field

from ckptfmt._core.pth.data.byte_reader import ByteReader
from ckptfmt._core.pth.limits import (
    MAX_CONTAINERS,
    MAX_INTEGER_BYTES,
    MAX_LINE_BYTES,
    MAX_MARKS,
    MAX_NAME_CHARS,
    MAX_OPERATIONS,
    MAX_PICKLE_BYTES,
)
from ckptfmt._core.pth.nodes import DictNode, Global, Persistent, Record, SetNode
from ckptfmt._core.pth.pickle.folding import fold
from ckptfmt.errors import ForeignFileError, UnsupportedFileError

__all__ = ["NOWHERE", "Budget", "Machine", "Violation", "integer", "pairs", "python2_text", "text"]

NOWHERE = Global("", "")
"""Stands for what a pickle calls without naming it."""

_HIGHEST_PROTOCOL = 5
_U64 = struct.Struct("<Q")


@dataclass(frozen=True)
class Violation:
    """Something that no checkpoint needs, beyond the calls of names.

    Attributes:
        words: What the pickle does, such as `calls the number 3`.
        name: The name that it concerns, if any.
    """

    words: str
    name: Global | None = None


@dataclass
class Budget:
    """What all pickles of one file may cost together.

    Attributes:
        operations: Opcodes that are left.
    """

    operations: int = MAX_OPERATIONS

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.operations < 0


def text(data: bytes) -> str:
    """Return text as `pickle` reads it: UTF-8, with lone surrogates."""
    return str(data, "utf-8", "surrogatepass")


def python2_text(data: bytes) -> str | bytes:
    """Return a `str` of Python 2 as text if it is, else as the bytes that it was."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


@dataclass
class Machine:
    """The state of the machine between two opcodes."""

    reader: ByteReader
    budget: Budget
    value: object = None
    protocol: int = 0
    globals: dict[Global, int] = field(default_factory=dict)
    called: set[Global] = field(default_factory=set)
    violations: list[Violation] = field(default_factory=list)
    outside: list[Persistent] = field(default_factory=list)
    stack: list[object] = field(default_factory=list)
    _outer: list[list[object]] = field(default_factory=list)  # what lies below each mark
    memo: dict[int, object] = field(default_factory=dict)
    _containers: int = 0

    # -- reading

    def number(self, layout: struct.Struct) -> int:
        """Return the next number."""
        value: int = layout.unpack(self.reader.read(layout.size))[0]
        return value

    def data(self, layout: struct.Struct) -> bytes:
        """Return the bytes that follow their length."""
        nbytes = self.number(layout)
        self.require(nbytes, MAX_PICKLE_BYTES, "a value")
        return self.reader.read(nbytes)

    def require(self, nbytes: int, limit: int, what: str) -> None:
        """Do nothing if a value may have a length.

        Raises:
            UnsupportedFileError: It has that many bytes, and that is beyond a limit.
            ForeignFileError: It cannot have them.
        """
        if not 0 <= nbytes <= limit:
            kind = UnsupportedFileError if 0 <= nbytes <= self.reader.remaining else ForeignFileError
            raise kind(f"{what} of {nbytes} bytes in a pickle, the limit is {limit}")

    def line(self) -> bytes:
        """Return the next line."""
        return self.reader.read_line(MAX_LINE_BYTES)

    def items(self) -> list[object]:
        """Return what lies above the topmost mark, and take the mark away."""
        items = self.stack
        self.stack = self._outer.pop()
        return items

    def made(self, container: object) -> None:
        """Push a container, and count it."""
        self._containers += 1
        if self._containers > MAX_CONTAINERS:
            raise UnsupportedFileError(f"the pickle makes more than {MAX_CONTAINERS} containers")
        self.stack.append(container)

    # -- stack and memo

    def mark(self) -> None:
        """MARK."""
        if len(self._outer) >= MAX_MARKS:
            raise UnsupportedFileError(f"the pickle has more than {MAX_MARKS} containers open at once")
        self._outer.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        """POP: what is on top, or the mark."""
        if self.stack:
            self.stack.pop()
        else:
            self.items()

    def pop_mark(self) -> None:
        """POP_MARK."""
        self.items()

    def dup(self) -> None:
        """DUP."""
        self.stack.append(self.stack[-1])

    def put(self, number: int) -> None:
        """Remember what is on top under a number."""
        if number < 0:
            raise ForeignFileError("the pickle has a negative memo number")
        self.memo[number] = self.stack[-1]

    def get(self, number: int) -> None:
        """Push what is remembered under a number."""
        self.stack.append(self.memo[number])

    # -- scalars

    def push(self, value: object) -> None:
        """Push a value."""
        self.stack.append(value)

    def int_line(self) -> None:
        """INT: an integer or a boolean as text."""
        line = self.line()
        self.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else integer(line))

    def long_line(self) -> None:
        """LONG: an integer as text."""
        self.push(integer(self.line().removesuffix(b"L")))

    def long_bytes(self, layout: struct.Struct) -> None:
        """LONG1, LONG4: an integer as its bytes."""
        nbytes = self.number(layout)
        self.require(nbytes, MAX_INTEGER_BYTES, "an integer")
        self.push(int.from_bytes(self.reader.read(nbytes), "little", signed=True))

    def string_line(self) -> None:
        """STRING: text of Python 2 in quotes."""
        line = self.reader.read_line(MAX_PICKLE_BYTES)
        if len(line) < 2 or line[:1] not in b"'\"" or line[-1:] != line[:1]:
            raise ForeignFileError("the pickle has a string without quotes")
        self.push(python2_text(codecs.escape_decode(line[1:-1])[0]))

    def unicode_line(self) -> None:
        """UNICODE: text with escapes."""
        self.push(str(self.reader.read_line(MAX_PICKLE_BYTES), "raw-unicode-escape"))

    # -- containers

    def tuple_of(self, count: int) -> None:
        """TUPLE1 to TUPLE3."""
        if len(self.stack) < count:
            raise IndexError
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.made(items)

    def dict_of_items(self) -> None:
        """DICT: the items above the mark."""
        self.made(DictNode(pairs(self.items())))

    def set_items(self, pairs: list[tuple[object, object]]) -> None:
        """SETITEMS of what is on top."""
        target = self.stack[-1]
        if not isinstance(target, DictNode | Record):
            raise ForeignFileError(f"the pickle sets items of {_kind(target)}")
        target.entries += pairs

    def set_item(self) -> None:
        """SETITEM."""
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([(key, value)])

    def append(self, items: list[object]) -> None:
        """APPEND, APPENDS to what is on top."""
        target = self.stack[-1]
        if isinstance(target, Record):
            target.elements += items
        elif isinstance(target, list):
            target += items
        else:
            raise ForeignFileError(f"the pickle appends to {_kind(target)}")

    def add_items(self) -> None:
        """ADDITEMS to what is on top."""
        items = self.items()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.added += items
        elif isinstance(target, SetNode) and not target.frozen:
            target.elements += items
        else:
            raise ForeignFileError(f"the pickle adds elements to {_kind(target)}")

    # -- what would import or call

    def name(self, module: object, name: object) -> Global:
        """Return a name, and count it."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ForeignFileError("the pickle names a class by something that is no text")
        if max(len(module), len(name)) > MAX_NAME_CHARS:
            raise ForeignFileError(f"the pickle has a name of a class of more than {MAX_NAME_CHARS} characters")
        found = Global(module, name)
        self.globals[found] = self.globals.get(found, 0) + 1
        return found

    def global_lines(self) -> None:
        """GLOBAL: a name in two lines."""
        module, name = text(self.line()), text(self.line())
        self.push(self.name(module, name))

    def stack_global(self) -> None:
        """STACK_GLOBAL: a name from the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.push(self.name(module, name))

    def extension(self, layout: struct.Struct) -> None:
        """EXT1 to EXT4."""
        code = self.number(layout)
        self.violations.append(Violation(f"takes a class by the extension code {code}, which only the reader can name"))
        self.push(NOWHERE)

    def make(self, callee: object, args: object, kwargs: object = None) -> None:
        """Push what a call would return."""
        if not isinstance(args, tuple):
            raise ForeignFileError(f"the pickle calls something with {_kind(args)} in place of a tuple of arguments")
        if not isinstance(callee, Global):
            maker = callee.callee if isinstance(callee, Record) and callee.callee is not NOWHERE else None
            self.violations.append(Violation(f"calls {_kind(callee)}", maker))
            callee = NOWHERE if maker is None else Global(maker.module, f"{maker.name}()")
            self.made(Record(callee, args, kwargs))
            return
        plain = fold(callee, args) if kwargs is None else None
        if isinstance(plain, Global):
            self.push(self.name(plain.module, plain.name))
            return
        if plain is None:
            self.called.add(callee)
            plain = Record(callee, args, kwargs)
        self.made(plain)

    def reduce(self) -> None:
        """REDUCE, NEWOBJ."""
        args, callee = self.stack.pop(), self.stack.pop()
        self.make(callee, args)

    def new_with_names(self) -> None:
        """NEWOBJ_EX."""
        kwargs, args, callee = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.make(callee, args, kwargs)

    def inst(self) -> None:
        """INST."""
        module, name = text(self.line()), text(self.line())
        self.make(self.name(module, name), tuple(self.items()))

    def obj(self) -> None:
        """OBJ."""
        items = self.items()
        callee, args = items[0], items[1:]
        self.make(callee, tuple(args))

    def build(self) -> None:
        """BUILD."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Record):
            target.states.append(state)
        elif isinstance(target, Global):
            self.violations.append(Violation(f"changes {target} itself", target))
            self.stack[-1] = Record(target, (), states=[state])
        else:
            raise ForeignFileError(f"the pickle gives a state to {_kind(target)}")

    def persistent(self, identifier: object) -> None:
        """PERSID, BINPERSID."""
        match identifier:
            case ("module" | b"module", Global() as name, *_):
                # Before 1.6, the class of a module is put down so, beside its source code.
                self.push(name)
            case _:
                found = Persistent(identifier)
                self.outside.append(found)
                self.made(found)

    # -- protocol

    def proto(self) -> None:
        """PROTO."""
        number = self.reader.read(1)[0]
        if number > _HIGHEST_PROTOCOL:
            raise UnsupportedFileError(f"it is a pickle of protocol {number}, the highest known is {_HIGHEST_PROTOCOL}")
        self.protocol = max(self.protocol, number)

    def frame(self) -> None:
        """FRAME."""
        nbytes = self.number(_U64)
        if nbytes > self.reader.remaining:
            raise ForeignFileError(f"it ends within a frame of {nbytes} bytes")

    def out_of_band(self) -> None:
        """NEXT_BUFFER."""
        raise ForeignFileError("the pickle refers to a buffer outside the file")


def integer(line: bytes) -> int:
    """Return the integer that a line spells, which may not be long: to read it takes the square of its length."""
    if len(line) > 2 * MAX_INTEGER_BYTES:
        raise UnsupportedFileError(f"an integer of {len(line)} digits in a pickle")
    return int(line)


def pairs(items: list[object]) -> list[tuple[object, object]]:
    """Return keys and values that follow one another as pairs."""
    if len(items) % 2:
        raise ForeignFileError("the pickle has a dict with a key and no value")
    return list(zip(items[::2], items[1::2], strict=True))


def _kind(value: object) -> str:
    """Return what a node is, in words that hold nothing of the file's own but names."""
    match value:
        case Record(callee=callee):
            return f"what {callee} returns" if callee is not NOWHERE else "what a call returns"
        case Global():
            return f"the name {value}"
        case DictNode():
            return "a dict"
        case SetNode():
            return "a frozenset" if value.frozen else "a set"
        case Persistent():
            return "a storage"
    return f"a {type(value).__name__}"
