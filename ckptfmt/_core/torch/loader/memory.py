"""What a loader remembers from pass to pass: its generators, its counters, and whatever else a pass changes in it.

A sampler may count its passes, shuffle a list in place, or make its generator when it is first used. A loader that is
built anew lacks all of that. So the attributes of the loader, its samplers and its data set are looked at when a pass
begins, at each save and at the end of the epoch. What changes between these is the loader's own doing, or that of a
loop's body: it is saved, and put back after a resume. What changes between an epoch's end and the next pass is the
doing of code that will be run again after a resume, such as `set_epoch()`: it is left to that code.

An attribute that changed and cannot be saved, such as an open file, may go together with others of the same object. So
none of that object is put back then. Whether the data are the same all the same is seen by the batches themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ckptfmt._core.torch.live_objects.attributes import Slot, is_generator, walk
from ckptfmt._core.torch.live_objects.fingerprints import fingerprint
from ckptfmt._core.torch.live_objects.generators import StatefulGenerator
from ckptfmt._core.torch.live_objects.snapshots import (
    Kind,
    Snapshot,
    Snapshots,
    content,
    is_next_seed,
    mark_in,
    take_snapshots,
)
from ckptfmt._core.torch.loader.recall import put_generators, put_values

__all__ = ["History", "LoaderMemory", "Remembered"]

LENGTH = "its length"
_MAX_BUILD = 100
# Of a DataLoader's own numbers, those that do not change what it gives.
_IMMATERIAL = frozenset(
    {"prefetch_factor", "pin_memory", "pin_memory_device", "timeout", "persistent_workers", "in_order"}
)


@dataclass(frozen=True)
class Remembered:
    """What a loader remembers at one moment.

    Attributes:
        generators: States of the generators that the loader, its samplers and its data set keep, by path.
        values: What passes have changed so far, by path, as `snapshots.content` returns it.
    """

    generators: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class History:
    """What is known of a loader's ways, by marks as `snapshots` makes them.

    Attributes:
        passes: How many passes over it have begun in the run.
        initial: For what has ever changed: how it was before the first pass.
        inside: Paths of what passes have changed.
        outside: What was changed between an epoch's end and the next pass: how it was at the last beginning.
        lost: Objects of which something changed that cannot be saved: an example by path of the object.
        streams: Iterators that go on from pass to pass.
        build: How the loader is built: numbers, flags and kinds of its samplers, and its length.
    """

    passes: int = 0
    initial: Mapping[str, str] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    outside: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    build: Mapping[str, str] = field(default_factory=dict)


class LoaderMemory:
    """Follows what changes in the loader of a run."""

    def __init__(self) -> None:
        self.history = History()
        self._first: Snapshots | None = None
        """The first snapshot in this process."""
        self._begun: Snapshots = {}
        """When the present pass began."""
        self._begun_values: dict[str, Any] = {}
        """What passes had changed by then."""
        self._latest: Snapshots | None = None
        """The last snapshot since the pass began; None before the first."""
        self._resumed_early = False
        """The run was resumed after its first pass."""

    def begin(self, loader: object, length: int | None) -> Remembered:
        """Take note that a pass is to begin. Returns what the loader remembers."""
        slots = list(walk(loader))
        snapshots = take_snapshots(slots)
        history = self.history
        initial, outside = dict(history.initial), dict(history.outside)
        for path in self.changed_outside(snapshots):
            outside[path] = ""
        for path in outside:
            initial.setdefault(path, self._initial(path, snapshots))
            outside[path] = mark_in(snapshots, path)
        self._first = self._first or snapshots
        build = {path: seen.mark for path, seen in snapshots.items() if _is_build(path, seen) and path not in initial}
        build = dict(list(build.items())[:_MAX_BUILD]) | {LENGTH: str(length)}
        self.history = replace(history, passes=history.passes + 1, initial=initial, outside=outside, build=build)
        return self._begin_from(slots)

    def changed_outside(self, snapshots: Snapshots) -> list[str]:
        """Return what has changed since the last epoch ended, of what may matter for the data."""
        latest = self._latest
        if latest is None:
            return []
        kinds = {path: snapshots.get(path) or latest[path] for path in _changed(latest, snapshots)}
        return [
            path
            for path, seen in kinds.items()
            if path in self.history.inside or seen.kind is Kind.GENERATOR or _is_build(path, seen)
        ]

    def overlooked(self, loader: object) -> list[str]:
        """Say what a resume after the first epoch could not know: a line each. To be called before `begin`."""
        found = self.changed_outside(take_snapshots(walk(loader))) if self._resumed_early else []
        self._resumed_early &= self._latest is None
        return [
            f"{path} is set anew between epochs, which the first epoch alone could not tell; the data of the epoch "
            "after the resume may have been others than those of an uninterrupted run"
            for path in found
            if path not in self.history.outside
        ]

    def note(self, loader: object) -> list[Slot]:
        """Take note of what has changed since the pass began. Returns where everything is."""
        slots = list(walk(loader))
        snapshots = take_snapshots(slots)
        history = self.history
        inside, initial, lost_parts = set(history.inside), dict(history.initial), dict(history.lost)
        streams = set(history.streams)
        for path, seen in snapshots.items():
            if seen.kind is not Kind.ITERATOR or mark_in(self._begun, path) != seen.mark:
                continue
            if self._begun[path].place != seen.place:
                streams.add(path)
            elif not seen.in_dataset and not seen.shared:
                lost_parts.setdefault(seen.owner, path)  # it may go on from pass to pass
        for path in _changed(self._begun, snapshots):
            before, after = self._begun.get(path), snapshots.get(path)
            kept = after or self._begun[path]
            if ((before and before.place) or kept.place) and not _is_one_iterator(before, after):
                if kept.in_dataset:
                    lost_parts.setdefault(kept.owner, path)
                continue
            if _can_be_put_back(before, after):
                if after is not None and (after.kind is not Kind.GENERATOR or after.shared):
                    inside.add(path)
                initial.setdefault(path, self._initial(path, self._begun))
            elif not kept.shared:
                lost_parts.setdefault(kept.owner, path)
        self._latest = snapshots
        self.history = replace(
            history,
            initial=initial,
            inside=tuple(sorted(inside)),
            lost=lost_parts,
            streams=tuple(sorted(streams)),
        )
        return slots

    def add_stream(self, what: str) -> None:
        """Take note of something that goes on from pass to pass, other than attributes."""
        self.history = replace(self.history, streams=tuple(sorted({*self.history.streams, what})))

    def seen(self) -> str:
        """Return a mark of what could be seen of the loader when the pass began, but for generators."""
        kinds = (Kind.PLAIN, Kind.BULK)
        return fingerprint([f"{path} {seen.mark}" for path, seen in self._begun.items() if seen.kind in kinds], 1 << 16)

    def now(self, loader: object) -> Remembered:
        """Take note of what has changed, and return what the loader remembers."""
        return self._remembered(self.note(loader))

    def at_the_beginning(self, begun: Remembered) -> Remembered:
        """Return what the loader remembered when the pass began, with what has turned out to change since."""
        values = dict(self._begun_values)
        for path in self.history.inside:
            seen = self._begun.get(path)
            if path not in values and seen is not None and seen.kind is Kind.PLAIN:
                values[path] = {"plain": seen.plain}
        lost_too = {path for path, seen in self._begun.items() if seen.owner in self.history.lost}
        return Remembered(begun.generators, {path: value for path, value in values.items() if path not in lost_too})

    def meet(self, loader: object, length: int | None, history: History) -> list[str]:
        """Take a snapshot of a loader that was built again, before anything is put back.

        Returns:
            In what it is another one than that of a checkpoint, or may be, a line each.
        """
        self._first = take_snapshots(walk(loader))
        return _differences(history, self._first, length)

    def recall_beginning(self, loader: object, history: History, begun: Remembered) -> None:
        """Bring a loader that was built anew to where it was when the present pass began, as far as that is known.

        Raises:
            MismatchError: It has generators that it did not have.
        """
        self.history = history
        put_values(loader, begun.values)
        put_generators(loader, begun.generators, may_be_missing=True)
        self._begin_from(list(walk(loader)))
        self._begun_values = dict(begun.values)

    def recall_now(self, loader: object, now: Remembered) -> list[str]:
        """Bring a loader to where it was at the save, once its pass has come there.

        What the pass has changed by itself is left alone.

        Returns:
            What was put back. Not the pass had changed that, then, but the loop's body.

        Raises:
            MismatchError: It has other generators.
        """
        snapshots = take_snapshots(walk(loader))
        untouched = {
            path: value
            for path, value in now.values.items()
            if "generator" in value or mark_in(snapshots, path) == mark_in(self._begun, path)
        }
        put_values(loader, untouched)
        put_generators(loader, now.generators)
        after = take_snapshots(walk(loader))
        return [path for path in untouched if mark_in(after, path) != mark_in(snapshots, path)]

    def recall_between(self, loader: object, history: History, then: Remembered) -> list[str]:
        """Bring a loader that was built anew to where one of its kind was when its pass was over.

        What it has changed by a state of its own since `meet` is left alone.

        Returns:
            What may not be as it was, a line each.

        Raises:
            MismatchError: It has other generators.
        """
        met = self._first
        assert met is not None
        slots = {slot.path: slot for slot in walk(loader)}
        snapshots = take_snapshots(slots.values())
        initial, outside, values = dict(history.initial), dict(history.outside), {}
        for path, value in then.values.items():
            if path in outside or mark_in(snapshots, path) != mark_in(met, path):
                continue
            # As long as there was but one pass, nothing else tells whether other code is to change this.
            if history.passes > 1 or mark_in(met, path) == initial.get(path):
                values[path] = value
            elif path not in slots or not _has(slots[path], value):
                outside[path] = mark_in(met, path)
        if history.passes == 1:
            for path, mark in history.build.items():
                if path != LENGTH and mark_in(met, path) != mark:
                    initial.setdefault(path, mark)
                    outside[path] = mark_in(met, path)
            for path in then.generators:
                if path in met and is_next_seed(met[path].mark, initial.get(path, "")):
                    outside[path] = met[path].mark  # seeded by the number of the epoch
        generators = {path: state for path, state in then.generators.items() if path not in outside}
        put_values(loader, values)
        put_generators(loader, generators, left_alone=outside.keys())
        self.history = replace(history, initial=initial, outside=outside)
        self._latest = None
        self._resumed_early = history.passes == 1
        return [
            f"{path} was seeded in another way than when the run began; it has the state of the checkpoint now, which "
            "is wrong if the loop seeds it for each epoch"
            for path in generators
            if history.passes == 1 and path in met and mark_in(met, path) not in (initial.get(path), "None")
        ]

    def _begin_from(self, slots: list[Slot]) -> Remembered:
        self._begun = self._latest = take_snapshots(slots)
        remembered = self._remembered(slots)
        self._begun_values = dict(remembered.values)
        return remembered

    def _remembered(self, slots: Iterable[Slot]) -> Remembered:
        generators, values = {}, {}
        for slot in slots:
            if is_generator(slot.value) and not slot.shared:
                generators[slot.path] = StatefulGenerator(slot.value).state_dict()
            elif slot.path in self.history.inside and slot.owner not in self.history.lost:
                saved = content(slot.value)
                if saved is None:
                    self.history = replace(self.history, lost={**self.history.lost, slot.owner: slot.path})
                else:
                    values[slot.path] = saved
        return Remembered(generators, values)

    def _initial(self, path: str, snapshots: Snapshots) -> str:
        return mark_in(snapshots if self._first is None else self._first, path)


def _differences(history: History, snapshots: Snapshots, length: int | None) -> list[str]:
    return [
        *(
            f"{path} was {mark} in the checkpoint, is {_now(path, snapshots, length)} now"
            for path, mark in history.build.items()
            if path not in history.initial
            and _now(path, snapshots, length) != mark
            # What is to be called for each epoch has not been called twice yet: so it cannot be told from the rest.
            and (history.passes > 1 or "epoch" not in path.lower())
        ),
        *(
            f"{path} is {mark_in(snapshots, path)}, as before the first epoch, though it changed between epochs; call "
            "set_epoch() and the like before batches(), not behind end_epoch()"
            for path, mark in history.outside.items()
            if mark != mark_in(snapshots, path) == history.initial.get(path)
        ),
        *(
            f"{example} changed in the epochs before and cannot be put back; neither can {counter}: data that follow "
            "from them differ from those of an uninterrupted run"
            for owner, example in history.lost.items()
            if example not in history.streams and (counter := _withheld(owner, history)) is not None
        ),
        *(
            f"{path} goes on from pass to pass and cannot be put back: data that follow from it differ from those of "
            "an uninterrupted run"
            for path in history.streams
        ),
    ]


def _has(slot: Slot, saved: Mapping[str, Any]) -> bool:
    return "plain" in saved and content(slot.value) == saved


def _now(path: str, snapshots: Snapshots, length: int | None) -> str:
    return str(length) if path == LENGTH else mark_in(snapshots, path)


def _withheld(owner: str, history: History) -> str | None:
    """Say what is not put back of an object of which something cannot be saved; None if that hardly matters."""
    inside = [path for path in history.inside if path.startswith(f"{owner}." if owner else "")]
    counters = [path for path in inside if history.initial.get(path) not in ("True", "False")]
    if counters:
        return counters[0]
    return f"the rest of {owner}" if _is_sampler(owner) else None


def _changed(before: Snapshots, after: Snapshots) -> list[str]:
    return [path for path in {**before, **after} if mark_in(before, path) != mark_in(after, path)]


def _is_one_iterator(before: Snapshot | None, after: Snapshot | None) -> bool:
    """Say whether both are of an iterator that can be brought to its place, and may be the same."""
    return before is not None and after is not None and before.kind is after.kind is Kind.BULK


def _can_be_put_back(before: Snapshot | None, after: Snapshot | None) -> bool:
    if after is None:
        return False
    if after.kind is Kind.GENERATOR:
        return before is None or before.kind is Kind.GENERATOR or before.mark == "None"
    kinds = (Kind.PLAIN, Kind.BULK)
    return after.kind in kinds and (before is None or before.kind in kinds)


def _is_build(path: str, seen: Snapshot | None) -> bool:
    """Say whether something is part of how a loader is built."""
    if seen is None or seen.in_dataset or seen.shared or path.rpartition(".")[-1] in _IMMATERIAL:
        return False
    return seen.kind in (Kind.PLAIN, Kind.OBJECT)


def _is_sampler(path: str) -> bool:
    return not {"sampler", "batch_sampler"}.isdisjoint(path.split("."))
