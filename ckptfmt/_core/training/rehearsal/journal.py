"""What a process of a rehearsal sees, moment by moment, as lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

__all__ = ["Done", "Entry", "Kind", "Moment", "Thing", "append", "entries_of"]


class Done(NamedTuple):
    """How far a run is.

    Attributes:
        epoch: Epochs finished.
        step: Steps done.
        batches: Batches of the current epoch that were handed out.
    """

    epoch: int
    step: int
    batches: int = 0


class Moment(StrEnum):
    """Moment of an entry."""

    HANDED = "handed"
    """A step or batch was handed to the loop, which has not worked on it yet."""
    STEPPED = "stepped"
    """A step is done."""
    ENDED_EPOCH = "ended_epoch"
    """An epoch is done."""
    FINISHED = "finished"
    """The last step of the rehearsal is done, and saved."""


class Kind(StrEnum):
    """Kind of something that a rehearsal compares: a component, the random states, a batch, or else what is reached."""

    COMPONENT = "component"
    RANDOM = "random state"
    BATCH = "batch"
    MODULE = "module"
    OPTIMIZER = "optimizer"
    SCHEDULER = "scheduler"
    STATEFUL = "object"
    GENERATOR = "generator"
    VARIABLE = "variable"
    ATTRIBUTE = "attribute"


@dataclass(frozen=True)
class Thing:
    """Something that the loop can reach and that is not a component.

    Attributes:
        kind: What it is.
        type_name: Its class.
        digest: Digest of its state.
        shown: A short value as text; empty for anything else.
        is_live: Whether the program may read it before it replaces it.
    """

    kind: Kind
    type_name: str
    digest: str
    shown: str = ""
    is_live: bool = True


@dataclass(frozen=True)
class Entry:
    """What a process saw at one moment.

    Attributes:
        moment: When.
        done: How far the run is.
        batch: Digest of the batch that was handed out; empty without one.
        components: Digest of each component.
        random: Digest of each global random generator.
        things: What else the loop can reach, by name: `ema in main()`, `self.best in Trainer.fit()`.
    """

    moment: Moment
    done: Done
    batch: str = ""
    components: Mapping[str, str] = field(default_factory=dict)
    random: Mapping[str, str] = field(default_factory=dict)
    things: Mapping[str, Thing] = field(default_factory=dict)

    @property
    def place(self) -> tuple[Moment, Done]:
        """What tells it apart in a journal."""
        return self.moment, self.done

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.done.epoch

    @property
    def step(self) -> int:
        """Steps done."""
        return self.done.step


def append(journal: str, entry: Entry) -> None:
    """Append an entry to a journal, in one write: a kill leaves whole lines."""
    line = json.dumps(asdict(entry)).encode() + b"\n"
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    finally:
        os.close(descriptor)


def entries_of(journal: Path) -> Iterator[Entry]:
    """Yield the entries of a journal; none if there is no such file."""
    if not journal.exists():
        return
    for line in journal.read_text().splitlines():
        tree = json.loads(line)
        things = {name: Thing(**{**thing, "kind": Kind(thing["kind"])}) for name, thing in tree.pop("things").items()}
        known = {"moment": Moment(tree["moment"]), "done": Done(*tree["done"]), "things": things}
        yield Entry(**{**tree, **known})
