"""MessagePack values as nodes that can be changed, wrongly encoded ones included."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from spec import minimal_reader
from spec.vectors.making.values import ext, pack

CONTAINERS = ("array", "map", "tuple", "set", "typed")
EXT_TYPES = {"tuple": 2, "set": 3, "typed": 6}
INTEGERS = [0, 1, 2, 31, 32, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 2**31, 2**32 - 1, 2**32, 2**53, 2**60]
INTEGERS += [
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -1,
    -32,
    -33,
    -128,
    -129,
    -32768,
    -32769,
    -(2**31),
    -(2**63),
    -(2**63) - 1,
]
FLOATS = [0.0, -0.0, 1.0, 0.5, float("inf"), float("-inf"), float("nan"), 2.0**53, 2.0**62, 2.0**63, 5e-324]
TEXTS = [
    "",
    "a",
    "w",
    "é",
    "\0",
    "\n",
    "none",
    "zstd",
    "net",
    "_root",
    "x" * 32,
    "__metadata__",
    "\U0001f600",
    "F32",
    "U8",
]
TEXTS += ["net.msgpack", "net.safetensors", "_root.msgpack", "cuda:0", "bfloat16", "C128", "I64", "CON", "a.", "A"]
TEXTS += ["2024-02-29", "2023-02-29", "2024-02-29T12:00:00", "2024-02-29T12:00:00+01:00", "12:00:00.500000", "24:00:00"]
TEXTS += ["12:00:00+00:00", "12:00:00-00:00", "2024-02-29T12:00:00+00:00:01", "2024-W09-4", "0001-01-01T00:00:00+23:59"]
BINS = [b"", b"\0", b"\1", bytes(4), bytes(8), bytes(16), bytes(31), bytes(32), bytes(33), b"{}"]
TYPE_NAMES = [*minimal_reader.TYPES, "my.Type", ""]
EXTS = [(-1, 4), (-1, 8), (-1, 12), (1, 1), (4, 9), (4, 8), (5, 16), (2, 1), (7, 3), (0, 1), (-2, 2)]
FIRST_BYTES = [
    0x80,
    0x90,
    0xA0,
    0xC0,
    0xC1,
    0xC4,
    0xC7,
    0xCA,
    0xCB,
    0xCC,
    0xCF,
    0xD0,
    0xD3,
    0xD4,
    0xD8,
    0xD9,
    0xDC,
    0xDD,
]
FIRST_BYTES += [0xDE, 0xDF, 0xE0, 0xFF]


@dataclass
class Node:
    """A value: a container with its elements (of a map keys and values in turn), a leaf, or bytes as they are."""

    kind: str
    value: Any = None
    items: list[Node] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return its bytes."""
        if self.kind == "raw":
            data: bytes = self.value
            return data
        if self.kind == "leaf":
            return pack(self.value)
        body = b"".join([item.encode() for item in self.items])
        if self.kind == "map":
            return _head(0x80, 0xDE, len(self.items) // 2) + body
        body = _head(0x90, 0xDC, len(self.items)) + body
        return body if self.kind == "array" else ext(EXT_TYPES[self.kind], body)

    def walk(self) -> Iterator[Node]:
        """Yield it and all inside it."""
        yield self
        for item in self.items:
            yield from item.walk()

    def copy(self) -> Node:
        """Return a copy that can be changed."""
        return Node(self.kind, self.value, [item.copy() for item in self.items])


def _head(short: int, first: int, count: int) -> bytes:
    if count < 16:
        return bytes([short + count])
    return struct.pack(">BH", first, count) if count < 1 << 16 else struct.pack(">BI", first + 1, count)


def node_of(value: Any) -> Node:
    """Return a decoded value of the minimal reader as a node."""
    if isinstance(value, list):
        return Node("array", items=list(map(node_of, value)))
    if isinstance(value, minimal_reader.Ext):
        match value.kind:
            case "map":
                return Node("map", items=[node_of(item) for pair in value.value for item in pair])
            case "tuple" | "set" | "typed":
                return Node(value.kind, items=list(map(node_of, value.value)))
            case "tensor":
                return Node("raw", ext(1, value.value.encode()))
            case "complex":
                return Node("raw", ext(5, value.value))
            case _:
                seconds, nanoseconds = value.value
                return Node("raw", ext(-1, _timestamp(seconds, nanoseconds)))
    return Node("leaf", value)


def _timestamp(seconds: int, nanoseconds: int) -> bytes:
    if not 0 <= seconds < 1 << 34:
        return struct.pack(">Iq", nanoseconds, seconds)
    if nanoseconds or seconds >= 1 << 32:
        return struct.pack(">Q", nanoseconds << 34 | seconds)
    return struct.pack(">I", seconds)


def leaf(random: Random) -> Node:
    """Return a leaf that may make trouble."""
    kind = random.randrange(8)
    if kind == 6:
        return Node("leaf", random.choice([None, True, False]))
    if kind == 7:
        type_, nbytes = random.choice(EXTS)
        return Node("raw", ext(type_, random.choice([bytes(nbytes), random.randbytes(nbytes)])))
    pools: Sequence[Sequence[Any]] = (INTEGERS, FLOATS, TEXTS, BINS, TEXTS, INTEGERS)
    return Node("leaf", random.choice(pools[kind]))


def changed(node: Node, random: Random, others: Sequence[Node]) -> None:
    """Change a node, or one inside it, in one way."""
    nodes = list(node.walk())
    target = random.choice(nodes)
    kind = random.randrange(12)
    if kind <= 1 or (kind <= 4 and not target.items):
        _become(target, _tweaked(target, random) if random.random() < 0.6 else leaf(random))
    elif kind <= 4:
        _rearrange(target, random)
    elif kind == 5:
        _become(target, random.choice(others).copy())
    elif kind == 6:
        _wrap(target, random)
    elif kind == 7 and target.kind in CONTAINERS:
        target.kind = random.choice(CONTAINERS)
    elif kind == 8:
        _become(target, Node("raw", _widened(target.encode(), random)))
    elif kind == 9:
        target.items.append(random.choice(nodes).copy() if random.random() < 0.5 else leaf(random))
    else:
        _become(target, Node("raw", scrambled(target.encode(), random)))


def _become(node: Node, other: Node) -> None:
    node.kind, node.value, node.items = other.kind, other.value, other.items


def _tweaked(node: Node, random: Random) -> Node:
    """Return a leaf that is nearly the same."""
    value = node.value
    if node.kind == "raw":
        return Node("raw", scrambled(value, random))
    if isinstance(value, bool) or value is None or node.kind != "leaf":
        return leaf(random)
    if isinstance(value, int):
        return Node(
            "leaf",
            random.choice([value + 1, value - 1, -value, value ^ 1 << random.randrange(64), float(value % 2**60)]),
        )
    if isinstance(value, float):
        return Node("leaf", random.choice([-value, value + 1, int(value) if abs(value) < 2**60 else 0]))
    if isinstance(value, str):
        text = scrambled(value.encode(), random).decode(errors="replace")
        return Node("leaf", random.choice([text, value.upper(), value + random.choice(" .:0\nZ"), value.encode()]))
    return Node("leaf", random.choice([scrambled(value, random), value + bytes(1), value * 2, value[:-1]]))


def _rearrange(node: Node, random: Random) -> None:
    step = 2 if node.kind == "map" and random.random() < 0.8 else 1
    count = max(1, len(node.items) // step)
    one, other = random.randrange(count) * step, random.randrange(count) * step
    match random.randrange(4):
        case 0:
            del node.items[one : one + step]
        case 1:
            node.items[other:other] = [item.copy() for item in node.items[one : one + step]]
        case 2:
            pair = node.items[one : one + step], node.items[other : other + step]
            if len(pair[0]) == len(pair[1]):
                node.items[one : one + step], node.items[other : other + step] = pair[1], pair[0]
        case _:
            node.items.reverse()


def _wrap(node: Node, random: Random) -> None:
    inner = Node(node.kind, node.value, node.items)
    kind = random.choice(CONTAINERS)
    if kind == "map":
        inner_items = [leaf(random), inner]
    elif kind == "typed":
        inner_items = [Node("leaf", random.choice(TYPE_NAMES)), inner]
    else:
        inner_items = [inner, *(leaf(random) for _ in range(random.randrange(2)))]
    _become(node, Node(kind, items=inner_items))


def _widened(data: bytes, random: Random) -> bytes:
    """Encode the head of a value in a longer format, or with another count."""
    if not data:
        return b"\xc1"
    first, rest = data[0], data[1:]
    wide = random.choice([1, 2, 4])
    if first < 0x80:
        return bytes([{1: 0xCC, 2: 0xCD, 4: 0xCE}[wide]]) + first.to_bytes(wide, "big")
    if 0x80 <= first < 0xA0:
        number = (first & 15) + random.choice([0, 0, 1, -1])
        width = 2 if wide < 4 else 4
        return bytes([(0xDE if first < 0x90 else 0xDC) + (width == 4)]) + max(0, number).to_bytes(width, "big") + rest
    if 0xA0 <= first < 0xC0:
        return bytes([{1: 0xD9, 2: 0xDA, 4: 0xDB}[wide]]) + (first & 31).to_bytes(wide, "big") + rest
    if 0xD4 <= first <= 0xD8:
        return bytes([{1: 0xC7, 2: 0xC8, 4: 0xC9}[wide]]) + (1 << (first - 0xD4)).to_bytes(wide, "big") + rest
    if first >= 0xE0:
        return bytes([{1: 0xD0, 2: 0xD1, 4: 0xD2}[wide]]) + (first - 256).to_bytes(wide, "big", signed=True)
    return bytes([random.choice(FIRST_BYTES)]) + rest


def scrambled(data: bytes, random: Random) -> bytes:
    """Return bytes with one or a few of them changed, removed or added."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        place = random.randrange(len(changed) + 1)
        match random.randrange(5):
            case 0 if changed:
                changed[place % len(changed)] ^= 1 << random.randrange(8)
            case 1 if changed:
                changed[place % len(changed)] = random.choice([0, 1, 0x7F, 0x80, 0xFF, *FIRST_BYTES])
            case 2:
                del changed[place : place + random.choice([1, 1, 2, 8])]
            case 3:
                changed[place:place] = random.randbytes(random.choice([1, 1, 2, 4]))
            case _:
                changed[place:place] = changed[place : place + random.choice([1, 2, 4, 16])]
    return bytes(changed)
