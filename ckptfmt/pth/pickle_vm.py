"""A pickle machine that makes nothing: any bytes in, inert nodes or an error out.

It carries out the opcodes of protocols 0 to 5 on a stack and a memo as `pickle` does, with one difference: where
`pickle` would import or call something, a `Global` or `Record` is put on the stack, which says what would have
happened. It is not recursive, hashes nothing that comes from the file but numbers of memo entries, and works within
the limits of `ckptfmt.pth.limits`.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ckptfmt.pth.bytereader import ByteReader
from ckptfmt.pth.failures import LegacyFileError
from ckptfmt.pth.limits import (
    MAX_CONTAINERS,
    MAX_INTEGER_BYTES,
    MAX_LINE_BYTES,
    MAX_MARKS,
    MAX_NAME_CHARS,
    MAX_OPERATIONS,
    MAX_PICKLE_BYTES,
)
from ckptfmt.pth.nodes import DictNode, Global, Persistent, Record, SetNode

__all__ = ["NOWHERE", "PickleRun", "run_pickle"]

NOWHERE = Global("", "")
"""Stands for what a pickle calls without naming it."""

_HIGHEST_PROTOCOL = 5
_ROUND = 256
"""Opcodes between two looks at the length."""


@dataclass(frozen=True)
class PickleRun:
    """What a pickle says.

    Attributes:
        value: Its value; None if there is an error.
        error: Why it has none.
        end: How many bytes it takes, up to where it ends or fails.
        protocol: The highest protocol that it names, 0 if none.
        globals: Every name that it would have imported, with how often it is taken from there, in order.
        called: The names among them that it would have called or made an object of.
        deeds: What else it would have done that no checkpoint does, in words.
        outside: What it refers to outside of itself, in order.
    """

    value: object
    error: LegacyFileError | None
    end: int
    protocol: int
    globals: Mapping[Global, int]
    called: frozenset[Global]
    deeds: tuple[str, ...]
    outside: tuple[Persistent, ...]


def run_pickle(reader: ByteReader) -> PickleRun:
    """Read one pickle, up to its STOP. Nothing is raised for what is in it."""
    machine = _Machine(reader)
    start = reader.position
    error: LegacyFileError | None = None
    try:
        machine.run()
    except LegacyFileError as failure:
        error = failure
    except (IndexError, KeyError, ValueError, OverflowError, struct.error) as failure:
        what: dict[type[Exception], str] = {
            IndexError: "takes a value that is not on the stack",
            KeyError: "takes what is not in the memo",
        }
        matter = what.get(type(failure), f"has a value that is not well-formed ({failure})"[:300])
        error = LegacyFileError(f"the pickle {matter}, at byte {reader.position}")
    return PickleRun(
        value=None if error else machine.value,
        error=error,
        end=reader.position - start,
        protocol=machine.protocol,
        globals=machine.globals,
        called=frozenset(machine.called),
        deeds=tuple(dict.fromkeys(machine.deeds)),
        outside=tuple(machine.outside),
    )


def _text(data: bytes) -> str:
    return str(data, "utf-8", "surrogatepass")


def _python2_text(data: bytes) -> str | bytes:
    """Return a `str` of Python 2 as text if it is, else as the bytes that it was."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


@dataclass
class _Machine:
    reader: ByteReader
    value: object = None
    protocol: int = 0
    globals: dict[Global, int] = field(default_factory=dict)
    called: set[Global] = field(default_factory=set)
    deeds: list[str] = field(default_factory=list)
    outside: list[Persistent] = field(default_factory=list)
    _stack: list[object] = field(default_factory=list)
    _outer: list[list[object]] = field(default_factory=list)  # what lies below each mark
    _memo: dict[int, object] = field(default_factory=dict)
    _containers: int = 0

    def run(self) -> None:
        """Carry out opcodes until STOP."""
        next_byte = self.reader.next_byte
        start = self.reader.position
        steps = [_STEPS.get(code, _unknown) for code in range(256)]
        for _ in range(0, MAX_OPERATIONS, _ROUND):
            for _ in range(_ROUND):
                code = next_byte()
                if code == _STOP:
                    self.value = self._stack.pop()
                    return
                steps[code](self)
            if self.reader.position - start > MAX_PICKLE_BYTES:
                raise LegacyFileError(f"the pickle is longer than {MAX_PICKLE_BYTES} bytes")
        raise LegacyFileError(f"the pickle has more than {MAX_OPERATIONS} opcodes")

    # -- reading

    def _number(self, layout: struct.Struct) -> int:
        number: int = layout.unpack(self.reader.read(layout.size))[0]
        return number

    def _data(self, layout: struct.Struct) -> bytes:
        nbytes = self._number(layout)
        if not 0 <= nbytes <= MAX_PICKLE_BYTES:
            raise LegacyFileError(f"a value of {nbytes} bytes in a pickle, the limit is {MAX_PICKLE_BYTES}")
        return self.reader.read(nbytes)

    def _line(self) -> bytes:
        return self.reader.read_line(MAX_LINE_BYTES)

    def _items(self) -> list[object]:
        """Return what lies above the topmost mark, and take the mark away."""
        items = self._stack
        self._stack = self._outer.pop()
        return items

    def _made(self, container: object) -> None:
        self._containers += 1
        if self._containers > MAX_CONTAINERS:
            raise LegacyFileError(f"the pickle makes more than {MAX_CONTAINERS} containers")
        self._stack.append(container)

    # -- stack and memo

    def mark(self) -> None:
        if len(self._outer) >= MAX_MARKS:
            raise LegacyFileError(f"the pickle has more than {MAX_MARKS} containers open at once")
        self._outer.append(self._stack)
        self._stack = []

    def pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._items()

    def pop_mark(self) -> None:
        self._items()

    def dup(self) -> None:
        self._stack.append(self._stack[-1])

    def put(self, number: int) -> None:
        if number < 0:
            raise LegacyFileError("the pickle has a negative memo number")
        self._memo[number] = self._stack[-1]

    def get(self, number: int) -> None:
        self._stack.append(self._memo[number])

    # -- scalars

    def push(self, value: object) -> None:
        self._stack.append(value)

    def int_line(self) -> None:
        line = self._line()
        self.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else _integer(line))

    def long_line(self) -> None:
        self.push(_integer(self._line().removesuffix(b"L")))

    def long_bytes(self, layout: struct.Struct) -> None:
        nbytes = self._number(layout)
        if not 0 <= nbytes <= MAX_INTEGER_BYTES:
            raise LegacyFileError(f"an integer of {nbytes} bytes in a pickle, the limit is {MAX_INTEGER_BYTES}")
        self.push(int.from_bytes(self.reader.read(nbytes), "little", signed=True))

    def string_line(self) -> None:
        line = self.reader.read_line(MAX_PICKLE_BYTES)
        if len(line) < 2 or line[:1] not in b"'\"" or line[-1:] != line[:1]:
            raise LegacyFileError("the pickle has a string without quotes")
        self.push(_python2_text(codecs.escape_decode(line[1:-1])[0]))

    def unicode_line(self) -> None:
        self.push(str(self.reader.read_line(MAX_PICKLE_BYTES), "raw-unicode-escape"))

    # -- containers

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._made(items)

    def dict_of_items(self) -> None:
        self._made(DictNode(_pairs(self._items())))

    def set_items(self, pairs: list[tuple[object, object]]) -> None:
        target = self._stack[-1]
        if not isinstance(target, DictNode | Record):
            raise LegacyFileError(f"the pickle sets items of {_kind(target)}")
        target.entries += pairs

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.set_items([(key, value)])

    def append(self, items: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, Record):
            target.elements += items
        elif isinstance(target, list):
            target += items
        else:
            raise LegacyFileError(f"the pickle appends to {_kind(target)}")

    def add_items(self) -> None:
        items = self._items()
        target = self._stack[-1]
        if not isinstance(target, SetNode | Record) or (isinstance(target, SetNode) and target.frozen):
            raise LegacyFileError(f"the pickle adds elements to {_kind(target)}")
        target.elements += items

    # -- what would import or call

    def name(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise LegacyFileError("the pickle names a class by something that is no text")
        if max(len(module), len(name)) > MAX_NAME_CHARS:
            raise LegacyFileError(f"the pickle has a name of a class of more than {MAX_NAME_CHARS} characters")
        found = Global(module, name)
        self.globals[found] = self.globals.get(found, 0) + 1
        return found

    def global_lines(self) -> None:
        module, name = _text(self._line()), _text(self._line())
        self.push(self.name(module, name))

    def stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self.push(self.name(module, name))

    def extension(self, layout: struct.Struct) -> None:
        self.deeds.append(f"takes a class by the extension code {self._number(layout)}, which only the reader can name")
        self.push(NOWHERE)

    def make(self, callee: object, args: object, kwargs: object = None) -> None:
        if not isinstance(args, tuple):
            raise LegacyFileError(f"the pickle calls something with {_kind(args)} in place of a tuple of arguments")
        if isinstance(callee, Global):
            self.called.add(callee)
        else:
            self.deeds.append(f"calls {_kind(callee)}")
            callee = NOWHERE
        self._made(Record(callee, args, kwargs))

    def reduce(self) -> None:
        args, callee = self._stack.pop(), self._stack.pop()
        self.make(callee, args)

    def new_with_names(self) -> None:
        kwargs, args, callee = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self.make(callee, args, kwargs)

    def inst(self) -> None:
        module, name = _text(self._line()), _text(self._line())
        self.make(self.name(module, name), tuple(self._items()))

    def obj(self) -> None:
        callee, *args = self._items() or [NOWHERE]
        self.make(callee, tuple(args))

    def build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Record):
            target.states.append(state)
        elif isinstance(target, Global):
            self.deeds.append(f"changes {target} itself")
        else:
            raise LegacyFileError(f"the pickle gives a state to {_kind(target)}")

    def persistent(self, identifier: object) -> None:
        match identifier:
            case ("module" | b"module", Global() as name, *_):
                # Before 1.6, the class of a module is put down so, beside its source code.
                self.push(name)
            case _:
                found = Persistent(identifier)
                self.outside.append(found)
                self._made(found)

    # -- protocol

    def proto(self) -> None:
        number = self.reader.read(1)[0]
        if number > _HIGHEST_PROTOCOL:
            raise LegacyFileError(f"it is a pickle of protocol {number}, the highest known is {_HIGHEST_PROTOCOL}")
        self.protocol = max(self.protocol, number)

    def frame(self) -> None:
        nbytes = self._number(_U64)
        if nbytes > self.reader.remaining:
            raise LegacyFileError(f"it ends within a frame of {nbytes} bytes")

    def out_of_band(self) -> None:
        raise LegacyFileError("the pickle refers to a buffer outside the file")


def _unknown(machine: _Machine) -> None:
    raise LegacyFileError(f"byte {machine.reader.position - 1} begins no opcode of a pickle")


def _integer(line: bytes) -> int:
    if len(line) > 2 * MAX_INTEGER_BYTES:
        raise LegacyFileError(f"an integer of {len(line)} digits in a pickle")
    return int(line)


def _pairs(items: list[object]) -> list[tuple[object, object]]:
    if len(items) % 2:
        raise LegacyFileError("the pickle has a dict with a key and no value")
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


_U8, _U16, _I32, _U32, _U64 = (struct.Struct(layout) for layout in ("<B", "<H", "<i", "<I", "<Q"))
_FLOAT = struct.Struct(">d")
_STOP = ord(".")

_STEPS: dict[int, Callable[[_Machine], None]] = {
    ord("("): _Machine.mark,
    ord("0"): _Machine.pop,
    ord("1"): _Machine.pop_mark,
    ord("2"): _Machine.dup,
    ord("p"): lambda m: m.put(_integer(m._line())),
    ord("q"): lambda m: m.put(m._number(_U8)),
    ord("r"): lambda m: m.put(m._number(_U32)),
    0x94: lambda m: m.put(len(m._memo)),
    ord("g"): lambda m: m.get(_integer(m._line())),
    ord("h"): lambda m: m.get(m._number(_U8)),
    ord("j"): lambda m: m.get(m._number(_U32)),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("I"): _Machine.int_line,
    ord("J"): lambda m: m.push(m._number(_I32)),
    ord("K"): lambda m: m.push(m._number(_U8)),
    ord("M"): lambda m: m.push(m._number(_U16)),
    ord("L"): _Machine.long_line,
    0x8A: lambda m: m.long_bytes(_U8),
    0x8B: lambda m: m.long_bytes(_I32),
    ord("F"): lambda m: m.push(float(m._line())),
    ord("G"): lambda m: m.push(_FLOAT.unpack(m.reader.read(8))[0]),
    ord("S"): _Machine.string_line,
    ord("T"): lambda m: m.push(_python2_text(m._data(_I32))),
    ord("U"): lambda m: m.push(_python2_text(m._data(_U8))),
    ord("V"): _Machine.unicode_line,
    ord("X"): lambda m: m.push(_text(m._data(_U32))),
    0x8C: lambda m: m.push(_text(m._data(_U8))),
    0x8D: lambda m: m.push(_text(m._data(_U64))),
    ord("B"): lambda m: m.push(m._data(_U32)),
    ord("C"): lambda m: m.push(m._data(_U8)),
    0x8E: lambda m: m.push(m._data(_U64)),
    0x96: lambda m: m.push(m._data(_U64)),  # BYTEARRAY8: inert bytes do as well
    ord("]"): lambda m: m._made([]),
    ord("a"): lambda m: m.append([m._stack.pop()]),
    ord("e"): lambda m: m.append(m._items()),
    ord("l"): lambda m: m._made(m._items()),
    ord(")"): lambda m: m._made(()),
    ord("t"): lambda m: m._made(tuple(m._items())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("}"): lambda m: m._made(DictNode()),
    ord("d"): _Machine.dict_of_items,
    ord("s"): _Machine.set_item,
    ord("u"): lambda m: m.set_items(_pairs(m._items())),
    0x8F: lambda m: m._made(SetNode()),
    0x90: _Machine.add_items,
    0x91: lambda m: m._made(SetNode(m._items(), frozen=True)),
    ord("c"): _Machine.global_lines,
    0x93: _Machine.stack_global,
    0x82: lambda m: m.extension(_U8),
    0x83: lambda m: m.extension(_U16),
    0x84: lambda m: m.extension(_I32),
    ord("R"): _Machine.reduce,
    0x81: _Machine.reduce,  # NEWOBJ: cls.__new__(cls, *args), for us the same
    0x92: _Machine.new_with_names,
    ord("i"): _Machine.inst,
    ord("o"): _Machine.obj,
    ord("b"): _Machine.build,
    ord("P"): lambda m: m.persistent(_python2_text(m._line())),
    ord("Q"): lambda m: m.persistent(m._stack.pop()),
    0x80: _Machine.proto,
    0x95: _Machine.frame,
    0x97: _Machine.out_of_band,
    0x98: lambda _: None,  # READONLY_BUFFER: bytes are read-only already
}
