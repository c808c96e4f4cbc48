"""A disk as a power cut may leave it: what is flushed is there, and of all else any part.

It is more careless than any real one. Of what was done since the last flush of a directory, each creation, removal and
renaming may have reached the disk or not, whatever came before or after it; only one renaming is never torn. Of what
was written to a file since its last flush, any part may have, and its length may have without its content.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path

__all__ = ["Disk", "Operation", "Tree", "fingerprint", "read_record", "write_tree"]

Tree = dict[str, "bytes | Tree"]
"""Files and directories by name."""

Place = tuple[int, str]
"""A directory, and a name in it."""


@dataclass(frozen=True)
class Operation:
    """One line of a record (see `recorder.c`)."""

    word: str
    arguments: tuple[str, ...]

    def text(self, position: int) -> str:
        """Return an argument that is a path or a text."""
        return bytes.fromhex(self.arguments[position]).decode(errors="surrogateescape")

    def number(self, position: int) -> int:
        """Return an argument that is a number."""
        return int(self.arguments[position])

    def __str__(self) -> str:
        if self.word in ("write", "resize"):
            return f"{self.word} at {self.arguments[1]}"
        texts = (self.text(at) for at, argument in enumerate(self.arguments) if not argument.isdecimal())
        return " ".join([self.word, *texts])


def read_record(path: Path) -> list[Operation]:
    """Return the operations of a record."""
    lines = (line.split("\t") for line in path.read_text().splitlines())
    return [Operation(word, tuple(arguments)) for word, *arguments in lines]


class _Luck(Enum):
    """What becomes of what was written and not flushed."""

    NONE = "none of it"
    ALL = "all of it"
    ZEROS = "its length"
    TORN = "parts of it"


@dataclass
class _File:
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Where, and what; without it, the length."""

    def flush(self) -> None:
        self.durable = self.content(_Luck.ALL, random.Random(0))
        self.pending.clear()

    def content(self, luck: _Luck, dice: random.Random) -> bytes:
        content = bytearray(self.durable)
        for offset, data in self.pending:
            if luck is _Luck.NONE or (luck is _Luck.TORN and dice.random() < 0.5):
                continue
            if data is None:
                content = content[:offset].ljust(offset, b"\0")
                continue
            content = content.ljust(offset + len(data), b"\0")
            if luck is _Luck.TORN:
                data = data[: dice.randrange(len(data) + 1)]
            content[offset : offset + len(data)] = bytes(len(data)) if luck is _Luck.ZEROS else data
        return bytes(content)


class Disk:
    """Replays a record, and says at each moment what a power cut may leave.

    Args:
        root: The directory that was recorded, as it was before: all that is in it is taken to be durable.
    """

    def __init__(self, root: Path) -> None:
        self.marks: list[str] = []
        self._root = root
        self._files: dict[int, _File] = {}
        self._durable: dict[Place, int] = {}
        self._pending: list[dict[Place, int | None]] = []
        self._now: dict[Place, int] = {}
        self._unused = count()
        self._numbers: dict[int, int] = {}
        """What stands for an inode: another number each time that the system uses it again."""
        self._root_number = self._new(root.stat().st_ino)
        self._take(root, self._root_number)
        self._durable = dict(self._now)

    def apply(self, done: Operation) -> None:
        """Do what was done."""
        match done.word:
            case "mark":
                self.marks.append(done.text(0))
            case "create":
                number = self._new(done.number(0))
                self._files[number] = _File()
                self._change({self._place(done.text(1)): number})
            case "mkdir":
                self._change({self._place(done.text(1)): self._new(done.number(0))})
            case "remove":
                self._change({self._place(done.text(0)): None})
            case "rename":
                before, after = self._place(done.text(0)), self._place(done.text(1))
                self._change({before: None, after: self._now[before]})
            case "link":
                self._change({self._place(done.text(1)): self._now[self._place(done.text(0))]})
            case "write":
                data = bytes.fromhex(done.arguments[2])
                self._files[self._numbers[done.number(0)]].pending.append((done.number(1), data))
            case "resize":
                self._files[self._numbers[done.number(0)]].pending.append((done.number(1), None))
            case "flush":
                self._flush(self._numbers[done.number(0)])
            case "flush-all":
                for file in self._files.values():
                    file.flush()
                self._durable = dict(self._now)
                self._pending.clear()
            case _:
                raise ValueError(done)

    def states(self, dice: random.Random, samples: int) -> Iterator[Tree]:
        """Yield trees that a power cut may leave now: the likely ones, each change alone, and some at random."""
        every = frozenset(range(len(self._pending)))
        chosen = [frozenset(range(number)) for number in range(len(every) + 1)]
        chosen += [frozenset([number]) for number in every]
        chosen += [every - {number} for number in every]
        chosen += [frozenset(number for number in every if dice.random() < 0.5) for _ in range(samples)]
        lucks = list(_Luck) if any(file.pending for file in self._files.values()) else [_Luck.ALL]
        for kept in dict.fromkeys(chosen):
            entries: dict[Place, int | None] = dict(self._durable)
            for number in sorted(kept):
                entries |= self._pending[number]
            below: dict[int, dict[str, int]] = {}
            for (directory, name), child in entries.items():
                if child is not None:
                    below.setdefault(directory, {})[name] = child
            for luck in lucks:
                yield self._tree(self._root_number, below, luck, dice)

    def _tree(self, directory: int, below: Mapping[int, Mapping[str, int]], luck: _Luck, dice: random.Random) -> Tree:
        return {
            name: self._files[child].content(luck, dice)
            if child in self._files
            else self._tree(child, below, luck, dice)
            for name, child in below.get(directory, {}).items()
        }

    def _take(self, directory: Path, number: int) -> None:
        for path in directory.iterdir():
            child = self._now[number, path.name] = self._new(path.lstat().st_ino)
            if path.is_dir():
                self._take(path, child)
            else:
                self._files[child] = _File(path.read_bytes())

    def _new(self, inode: int) -> int:
        number = self._numbers[inode] = next(self._unused)
        return number

    def _place(self, path: str) -> Place:
        directory = self._root_number
        *above, name = Path(path).relative_to(self._root).parts
        for part in above:
            directory = self._now[directory, part]
        return directory, name

    def _change(self, effects: dict[Place, int | None]) -> None:
        self._pending.append(effects)
        for place, number in effects.items():
            if number is None:
                del self._now[place]
            else:
                self._now[place] = number

    def _flush(self, number: int) -> None:
        if number in self._files:
            self._files[number].flush()
            return
        for effects in [change for change in self._pending if any(place[0] == number for place in change)]:
            self._pending.remove(effects)
            for place, child in effects.items():
                if child is None:
                    self._durable.pop(place, None)
                else:
                    self._durable[place] = child


def fingerprint(tree: Tree) -> int:
    """Return a number that is the same for the same tree."""
    return hash(frozenset((name, fingerprint(it) if isinstance(it, dict) else it) for name, it in tree.items()))


def write_tree(tree: Mapping[str, bytes | Tree], directory: Path) -> None:
    """Write a tree to an empty directory."""
    items: Iterable[tuple[str, bytes | Tree]] = tree.items()
    for name, it in items:
        path = directory / name
        if isinstance(it, dict):
            path.mkdir()
            write_tree(it, path)
        else:
            path.write_bytes(it)
