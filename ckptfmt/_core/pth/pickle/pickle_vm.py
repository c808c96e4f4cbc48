"""A pickle machine that makes nothing: any bytes in, inert nodes or an error out.

It carries out the opcodes of protocols 0 to 5 as `pickle` does, but for what would import or call something (see
`machine`). It is not recursive, and works within the limits of `pth.limits`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ckptfmt._core.pth.data.byte_reader import ByteReader
from ckptfmt._core.pth.limits import MAX_OPERATIONS, MAX_PICKLE_BYTES
from ckptfmt._core.pth.nodes import DictNode, Global, Persistent, Record, SetNode
from ckptfmt._core.pth.pickle.machine import Budget, Machine, Violation, integer, pairs, python2_text, text
from ckptfmt.errors import ForeignFileError, UnsupportedFileError

__all__ = ["PickleRun", "run_pickle"]

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
        violations: Anything else that it would have done and that no checkpoint needs.
        outside: What it refers to outside of itself, in order.
    """

    value: object
    error: ForeignFileError | None
    end: int
    protocol: int
    globals: Mapping[Global, int]
    called: frozenset[Global]
    violations: tuple[Violation, ...]
    outside: tuple[Persistent, ...]


def run_pickle(reader: ByteReader, budget: Budget | None = None) -> PickleRun:
    """Read one pickle, up to its STOP. Nothing is raised for what is in it.

    Args:
        reader: The bytes.
        budget: What it may cost, with other pickles of the same file; None: it is the only one.
    """
    machine = Machine(reader, budget or Budget())
    start = reader.position
    error: ForeignFileError | None = None
    try:
        _carry_out(machine)
    except ForeignFileError as failure:
        error = failure
    except (IndexError, KeyError, ValueError, OverflowError, struct.error) as failure:
        what: dict[type[Exception], str] = {
            IndexError: "takes a value that is not on the stack",
            KeyError: "takes what is not in the memo",
        }
        matter = what.get(type(failure), f"has a value that is not well-formed ({failure})"[:300])
        error = ForeignFileError(f"the pickle {matter}, at byte {reader.position}")
    return PickleRun(
        value=None if error else machine.value,
        error=error,
        end=reader.position - start,
        protocol=machine.protocol,
        globals=machine.globals,
        called=frozenset(machine.called),
        violations=tuple(dict.fromkeys(machine.violations)),
        outside=tuple(machine.outside),
    )


def _carry_out(machine: Machine) -> None:
    """Carry out opcodes until STOP."""
    next_byte = machine.reader.next_byte
    start = machine.reader.position
    steps = [_STEPS.get(code, _unknown) for code in range(256)]
    while True:
        machine.budget.operations -= _ROUND
        if machine.budget.operations < 0:
            raise UnsupportedFileError(f"its pickles have more than {MAX_OPERATIONS} opcodes")
        for _ in range(_ROUND):
            code = next_byte()
            if code == _STOP:
                machine.value = machine.stack.pop()
                return
            steps[code](machine)
        if machine.reader.position - start > MAX_PICKLE_BYTES:
            raise UnsupportedFileError(f"the pickle is longer than {MAX_PICKLE_BYTES} bytes")


def _unknown(machine: Machine) -> None:
    raise ForeignFileError(f"byte {machine.reader.position - 1} begins no opcode of a pickle")


_U8, _U16, _I32, _U32, _U64 = (struct.Struct(layout) for layout in ("<B", "<H", "<i", "<I", "<Q"))
_FLOAT = struct.Struct(">d")
_STOP = ord(".")

_STEPS: dict[int, Callable[[Machine], None]] = {
    ord("("): Machine.mark,
    ord("0"): Machine.pop,
    ord("1"): Machine.pop_mark,
    ord("2"): Machine.dup,
    ord("p"): lambda m: m.put(integer(m.line())),
    ord("q"): lambda m: m.put(m.number(_U8)),
    ord("r"): lambda m: m.put(m.number(_U32)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("g"): lambda m: m.get(integer(m.line())),
    ord("h"): lambda m: m.get(m.number(_U8)),
    ord("j"): lambda m: m.get(m.number(_U32)),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("I"): Machine.int_line,
    ord("J"): lambda m: m.push(m.number(_I32)),
    ord("K"): lambda m: m.push(m.number(_U8)),
    ord("M"): lambda m: m.push(m.number(_U16)),
    ord("L"): Machine.long_line,
    0x8A: lambda m: m.long_bytes(_U8),
    0x8B: lambda m: m.long_bytes(_I32),
    ord("F"): lambda m: m.push(float(m.line())),
    ord("G"): lambda m: m.push(_FLOAT.unpack(m.reader.read(8))[0]),
    ord("S"): Machine.string_line,
    ord("T"): lambda m: m.push(python2_text(m.data(_I32))),
    ord("U"): lambda m: m.push(python2_text(m.data(_U8))),
    ord("V"): Machine.unicode_line,
    ord("X"): lambda m: m.push(text(m.data(_U32))),
    0x8C: lambda m: m.push(text(m.data(_U8))),
    0x8D: lambda m: m.push(text(m.data(_U64))),
    ord("B"): lambda m: m.push(m.data(_U32)),
    ord("C"): lambda m: m.push(m.data(_U8)),
    0x8E: lambda m: m.push(m.data(_U64)),
    0x96: lambda m: m.made(Record(Global("builtins", "bytearray"), (m.data(_U64),))),
    ord("]"): lambda m: m.made([]),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.items()),
    ord("l"): lambda m: m.made(m.items()),
    ord(")"): lambda m: m.made(()),
    ord("t"): lambda m: m.made(tuple(m.items())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("}"): lambda m: m.made(DictNode()),
    ord("d"): Machine.dict_of_items,
    ord("s"): Machine.set_item,
    ord("u"): lambda m: m.set_items(pairs(m.items())),
    0x8F: lambda m: m.made(SetNode()),
    0x90: Machine.add_items,
    0x91: lambda m: m.made(SetNode(m.items(), frozen=True)),
    ord("c"): Machine.global_lines,
    0x93: Machine.stack_global,
    0x82: lambda m: m.extension(_U8),
    0x83: lambda m: m.extension(_U16),
    0x84: lambda m: m.extension(_I32),
    ord("R"): Machine.reduce,
    0x81: Machine.reduce,  # NEWOBJ: cls.__new__(cls, *args), for us the same
    0x92: Machine.new_with_names,
    ord("i"): Machine.inst,
    ord("o"): Machine.obj,
    ord("b"): Machine.build,
    ord("P"): lambda m: m.persistent(python2_text(m.line())),
    ord("Q"): lambda m: m.persistent(m.stack.pop()),
    0x80: Machine.proto,
    0x95: Machine.frame,
    0x97: Machine.out_of_band,
    0x98: lambda _: None,  # READONLY_BUFFER: bytes are read-only already
}
