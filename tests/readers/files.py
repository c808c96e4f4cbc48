"""Files of the format taken apart, changed in one part, and put together again with digests that are right."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from random import Random
from typing import Any

from spec import minimal_reader
from spec.vectors.making import frames
from spec.vectors.making.container import (
    BITS,
    File,
    Member,
    Segment,
    Tensor,
    align,
    digest,
    header_block,
    json_text,
    patched,
    resealed,
    safetensors,
)
from spec.vectors.making.container import member as build
from spec.vectors.making.values import Raw
from tests.readers.nodes import INTEGERS, TEXTS, Node, changed, node_of, scrambled

EXTENSIONS = (".safetensors", ".msgpack", "", ".SAFETENSORS", ".json")
TOKENS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b" ", b"0", b"-", b".", b"e", b"\\", b"null", b"true", b"\\u0041"]
TOKENS += [b"\\ud800", b"__metadata__", b'"dtype"', b'"shape"', b"\xc3\xa9", b"\t", b"1e1", b"9" * 20, b"NaN", b"\\n"]


@dataclass
class Part:
    """A member: its entry in the index, its stored bytes, and the logical ones."""

    entry: dict[str, Any]
    stored: bytes
    logical: bytes
    tensors: Sequence[minimal_reader.Tensor] = ()


@dataclass
class Seed:
    """A valid file, taken apart.

    Attributes:
        name: Name of the vector.
        data: The file.
    """

    name: str
    data: bytes
    parts: list[Part] = field(default_factory=list)
    minor: int = 0

    def __post_init__(self) -> None:
        logical: dict[str, bytearray] = {}
        minimal_reader.read_file(
            BytesIO(self.data), lambda name, _, chunk: logical.setdefault(name, bytearray()).extend(chunk)
        )
        self.minor = self.data[14] | self.data[15] << 8
        offset, nbytes = struct.unpack("<QQ", self.data[-64:-48])
        self.index_bytes = self.data[offset : offset + nbytes]
        _, members = minimal_reader.parse_index(self.index_bytes, newer=True)
        for member in map(minimal_reader.with_segments, members):
            stored = self.data[member.offset : member.offset + member.stored_bytes]
            entry = {key: getattr(member, key) for key in minimal_reader.ENTRY if getattr(member, key) is not None}
            self.parts.append(Part({**entry, "offset": None}, stored, bytes(logical[member.name]), member.tensors))

    @cached_property
    def index(self) -> Node:
        """The index as a tree."""
        return node_of(minimal_reader.Decoder(self.index_bytes, plain=True).decode())

    @cached_property
    def metadata(self) -> Raw:
        """The metadata, encoded."""
        items = self.index.items
        place = next(i for i in range(0, len(items), 2) if items[i].value == "metadata")
        return Raw(items[place + 1].encode())

    @cached_property
    def trees(self) -> dict[str, Node]:
        """The trees of its msgpack members."""
        return {
            part.entry["name"]: node_of(minimal_reader.Decoder(part.logical, plain=False).decode())
            for part in self.parts
            if part.entry["name"].endswith(".msgpack")
        }


@dataclass(frozen=True)
class Case:
    """A changed file.

    Attributes:
        data: The file.
        changes: How many changes were made: with one, there is little that could break two clauses.
    """

    data: bytes
    changes: int = 1


def assembled(parts: Sequence[Part], metadata: Raw, minor: int = 0, index: bytes | None = None) -> bytes:
    """Put a file together."""
    members = [Member(str(part.entry.get("name")), part.stored, part.entry) for part in parts]
    return File(members, metadata, minor=minor, index=index).encode()


class Changer:
    """Makes changed files of seeds, the same ones for the same number."""

    def __init__(self, seeds: Sequence[Seed], seed: int) -> None:
        self._seeds = seeds
        self._seed = seed
        self._trees = [tree for seed in seeds for tree in seed.trees.values()]
        self._nodes = [node for tree in self._trees for node in tree.walk()][:5000]
        self._with_trees = [seed for seed in seeds if seed.trees]
        self._with_tensors = [seed for seed in seeds if any(part.tensors for part in seed.parts)]
        self._with_frames = [seed for seed in seeds if any(part.entry["codec"] == "zstd" for part in seed.parts)]
        self._kinds: list[tuple[int, Callable[[Random], Case]]] = [
            (4, self._raw),
            (8, self._ends),
            (20, self._index),
            (10, self._index_twice),
            (25, self._tree),
            (15, self._header_text),
            (14, self._header),
            (8, self._frames),
            (10, self._spliced),
            (4, self._renamed),
        ]

    def case(self, number: int) -> Case:
        """Return the changed file of this number."""
        random = Random(f"{self._seed}/{number}")
        weights = [weight for weight, _ in self._kinds]
        ((_, make),) = random.choices(self._kinds, weights)
        return make(random)

    def _raw(self, random: Random) -> Case:
        data = random.choice(self._seeds).data
        match random.randrange(4):
            case 0:
                return Case(data[: random.randrange(len(data) + 1)])
            case 1:
                return Case(scrambled(data, random))
            case 2:
                place = random.choice([random.randrange(len(data)), random.randrange(64), -1 - random.randrange(64)])
                return Case(patched(data, place, bytes([random.randrange(256)])))
            case _:
                other = random.choice(self._seeds).data
                cut = random.randrange(min(len(data), len(other)) + 1)
                return Case(data[:cut] + other[cut:], 2)

    def _ends(self, random: Random) -> Case:
        """Change preamble, trailer or padding, and mend the digest."""
        seed = random.choice(self._seeds)
        data = seed.data
        changes = random.choice([1, 1, 2])
        for _ in range(changes):
            match random.randrange(4):
                case 0:
                    data = patched(data, random.randrange(64), bytes([random.choice([0, 1, 2, 255])]))
                case 1:
                    place = random.choice([-64, -56, -48])
                    (number,) = struct.unpack("<Q", data[place : place + 8 or None])
                    near = [number + 1, number - 1, number + 64, number - 64, number ^ 1 << random.randrange(64)]
                    number = random.choice([*near, *INTEGERS]) % 2**64
                    data = patched(data, place, struct.pack("<Q", number))
                case 2:
                    data = patched(data, random.choice([12, 14]), struct.pack("<H", random.choice([0, 1, 2, 65535])))
                case _:
                    data = patched(data, random.randrange(len(data)), bytes([random.choice([0, 1, 255])]))
        return Case(_mended(data), changes)

    def _index(self, random: Random) -> Case:
        seed = random.choice(self._seeds)
        index = seed.index.copy()
        changed(index, random, self._nodes)
        minor = random.choice([seed.minor, seed.minor, 0, 1])
        return Case(assembled(seed.parts, seed.metadata, minor, index.encode()), 1 + (minor != seed.minor))

    def _index_twice(self, random: Random) -> Case:
        """Change the index deeply: a member's entry or metadata, and then perhaps something else."""
        seed = random.choice(self._seeds)
        index = seed.index.copy()
        deep = [node for node in index.walk() if node.kind != "leaf"]
        changed(random.choice(deep), random, self._nodes)
        changes = random.choice([1, 1, 2])
        if changes == 2:
            changed(index, random, self._nodes)
        return Case(assembled(seed.parts, seed.metadata, seed.minor, index.encode()), changes)

    def _tree(self, random: Random) -> Case:
        seed = random.choice(self._with_trees)
        name = random.choice(list(seed.trees))
        tree = seed.trees[name].copy()
        changes = random.choice([1, 1, 1, 2, 3])
        for _ in range(changes):
            changed(tree, random, self._nodes)
        logical = tree.encode()
        codec = random.choice(["none", "none", "none", "zstd"])
        made = build(name, [Segment(logical)], codec=codec)
        return _with(seed, name, _part(made), changes)

    def _header_text(self, random: Random) -> Case:
        """Change the text of a header; length and digests of its block follow."""
        seed = random.choice(self._with_tensors)
        part = random.choice([part for part in seed.parts if part.tensors])
        text = part.entry["header"]
        changes = random.choice([1, 1, 2])
        for _ in range(changes):
            place = random.randrange(len(text) + 1)
            match random.randrange(4):
                case 0:
                    text = scrambled(text, random)
                case 1:
                    text = text[:place] + random.choice(TOKENS) + text[place:]
                case 2:
                    text = text[:place] + random.choice(TOKENS) + text[place + 1 :]
                case _:
                    end = place + random.randrange(12)
                    text = text[:place] + text[place:end] * 2 + text[end:]
        return _with_header(seed, part, text, changes)

    def _header(self, random: Random) -> Case:
        """Change the values of a header, or build another one of other tensors."""
        seed = random.choice(self._with_tensors)
        part = random.choice([part for part in seed.parts if part.tensors])
        if random.random() < 0.3:
            made = safetensors(part.entry["name"], _tensors(random), codec=random.choice(["none", "zstd"]))
            return _with(seed, part.entry["name"], _part(made))
        header = json.loads(part.entry["header"])
        changes = random.choice([1, 1, 2])
        for _ in range(changes):
            name = random.choice(list(header))
            _change_entry(header, name, random)
        return _with_header(seed, part, json_text(header), changes)

    def _frames(self, random: Random) -> Case:
        """Change a stored chunk, with its stored digest mended."""
        seed = random.choice(self._with_frames)
        part = random.choice([part for part in seed.parts if part.entry["codec"] == "zstd"])
        sizes, position, pieces = part.entry["stored_chunk_bytes"], 0, []
        for size in sizes:
            pieces.append(part.stored[position : position + size])
            position += size
        number = random.randrange(len(pieces))
        piece = pieces[number]
        if random.random() < 0.3:  # of the first frame's header and the headers of its blocks
            piece = patched(piece, random.randrange(min(16, len(piece))), bytes([random.randrange(256)]))
        elif random.random() < 0.5:
            piece = scrambled(piece, random)
        else:
            content = random.choice([b"", b"a", b"ab" * 40])
            piece = random.choice([piece + frames.raw(content), frames.plane(content or b"x") + piece, piece * 2])
        pieces[number] = piece
        entry = {
            **part.entry,
            "stored_bytes": sum(map(len, pieces)),
            "stored_chunk_bytes": list(map(len, pieces)),
            "stored_digests": b"".join(map(digest, pieces)),
        }
        new = Part(entry, b"".join(pieces), part.logical)
        return _with(seed, part.entry["name"], new)

    def _spliced(self, random: Random) -> Case:
        """Members of several files in one, in any order."""
        seeds = random.choices(self._seeds, k=random.choice([2, 2, 3]))
        parts = [part for seed in seeds for part in seed.parts]
        random.shuffle(parts)
        parts = parts[: random.randrange(1, 6)]
        if random.random() < 0.5:  # with names that differ
            parts = [
                Part({**part.entry, "name": f"{number}{part.entry['name'][:150]}"}, part.stored, b"")
                for number, part in enumerate(parts)
            ]
        return Case(assembled(parts, random.choice(seeds).metadata, random.choice([0, 0, 1])), len(parts))

    def _renamed(self, random: Random) -> Case:
        """A member of another name, which makes it a member of another kind."""
        seed = random.choice([seed for seed in self._seeds if seed.parts])
        part = random.choice(seed.parts)
        name = random.choice([random.choice(TEXTS), part.entry["name"].rpartition(".")[0]]) + random.choice(EXTENSIONS)
        entry = {**part.entry, "name": name}
        if not name.endswith(".safetensors") or random.random() < 0.2:
            entry.pop("header", None)
        return _with(seed, part.entry["name"], Part(entry, part.stored, b""), 2)


def _mended(data: bytes) -> bytes:
    offset, nbytes = struct.unpack("<QQ", data[-64:-48])
    return resealed(data) if nbytes < 1 << 20 and offset < 1 << 40 else data


def _part(made: Member) -> Part:
    return Part(made.entry, made.stored, made.logical)


def _with(seed: Seed, name: str, part: Part, changes: int = 1) -> Case:
    """A file with another member in place of one."""
    parts = [part if old.entry["name"] == name else old for old in seed.parts]
    return Case(assembled(parts, seed.metadata, seed.minor), changes)


def _with_header(seed: Seed, part: Part, text: bytes, changes: int) -> Case:
    text = text[:20_000]
    block, old = header_block(text), align(8 + len(part.entry["header"]), 4096)
    data = [Segment(part.logical[old:][begin:end]) for begin, end in sorted(t.data_offsets for t in part.tensors)]
    made = build(part.entry["name"], [Segment(block), *data], header=text)
    return _with(seed, part.entry["name"], _part(made), changes)


def _tensors(random: Random) -> list[Tensor]:
    made = []
    for number in range(random.randrange(1, 6)):
        dtype = random.choice(list(BITS))
        shape = [random.choice([0, 1, 2, 4, 8, 16, 64]) for _ in range(random.randrange(4))]
        size = 1
        for n in shape:
            size *= n
        if size * BITS[dtype] % 8 or size * BITS[dtype] > 1 << 16:
            shape, size = [8], 8
        name = random.choice(["w", "", "b", "a", "é", '"', f"t{number}"]) + (str(number) if number else "")
        made.append(Tensor(name, dtype, shape, random.randbytes(size * BITS[dtype] // 8)))
    return made


def _has_lists(entry: dict[str, Any]) -> bool:
    return all(isinstance(entry.get(key), list) and entry[key] for key in ("shape", "data_offsets"))


def _change_entry(header: dict[str, Any], name: str, random: Random) -> None:
    entry = header[name]
    kind = random.randrange(7)
    if kind == 0 or not isinstance(entry, dict) or not _has_lists(entry):
        header[random.choice(TEXTS)] = header.pop(name)
    elif kind == 1:
        entry["dtype"] = random.choice([*BITS, "F7", 1, None])
    elif kind == 2:
        shape = entry["shape"]
        shape.insert(random.randrange(len(shape) + 1), random.choice([0, 1, 2, *INTEGERS, 1.5]))
    elif kind == 3:
        entry["shape"][random.randrange(len(entry["shape"]))] = random.choice([*INTEGERS, 3, 2.0, "2", None, [1]])
    elif kind == 4:
        entry["data_offsets"][random.randrange(2)] = random.choice([*INTEGERS, 0.5, 4, 8, 64])
    elif kind == 5:
        header["__metadata__"] = random.choice([{}, {"a": "b"}, {"a": 1}, [], None])
    else:
        entry[random.choice(["dtype", "shape", "data_offsets", "x"])] = random.choice([None, [], {}, "F32", [0, 8], 1])
