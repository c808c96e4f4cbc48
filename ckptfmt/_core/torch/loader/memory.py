"""State that a loader carries from pass to pass: its generators, counters, and anything else that a pass changes.

A sampler may count its passes, shuffle a list in place, or create its generator at first use. A rebuilt loader lacks
all of that. The attributes of the loader, its samplers and its data set are therefore inspected when a pass begins, at
each save and at the end of the epoch. The loader itself or the loop's body makes the changes between these points: they
are saved, and restored after a resume. Changes between the end of an epoch and the next pass come from code that runs
again after a resume, such as `set_epoch()`: they are left to that code.

An attribute that changed and cannot be saved, such as an open file, may belong together with others of the same object,
so nothing of that object is restored. The batches themselves then show whether the data is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ckptfmt._core.torch.live_objects.aliases import put_references
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
from ckptfmt._core.torch.loader.rebinding import Rebinding
from ckptfmt._core.torch.loader.recall import put_generators, put_values

__all__ = ["History", "LoaderMemory", "Remembered"]

LENGTH = "its length"
_MAX_BUILD = 100
# Numbers of a DataLoader that do not affect its batches.
_IMMATERIAL = frozenset(
    {"prefetch_factor", "pin_memory", "pin_memory_device", "timeout", "persistent_workers", "in_order"}
)


@dataclass(frozen=True)
class Remembered:
    """State that a loader carries from pass to pass, at one moment.

    Attributes:
        generators: States of the generators of the loader, its samplers and its data set, by path.
        values: Values that passes have changed so far, by path, in the form of `snapshots.content`.
        references: Paths that passes make refer to other objects, with another path to the present one.
    """

    generators: Mapping[str, Any]
    values: Mapping[str, Any]
    references: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """Observed behaviour of a loader, in marks from `snapshots`.

    Attributes:
        passes: Number of passes begun in the run.
        initial: Marks before the first pass of everything that has ever changed.
        inside: Paths of attributes that passes have changed.
        outside: Attributes changed between the end of an epoch and the next pass, with their marks at the start of the
            last pass.
        lost: Objects with a change that cannot be saved: path of the object -> path of an example.
        streams: Iterators that continue from pass to pass.
        build: Configuration of the loader: numbers, flags and kinds of its samplers, and its length.
        rebound: Paths that passes make refer to other objects, with another path to the one before the first pass.
    """

    passes: int = 0
    initial: Mapping[str, str] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    outside: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    build: Mapping[str, str] = field(default_factory=dict)
    rebound: Mapping[str, str] = field(default_factory=dict)


class LoaderMemory:
    """Tracks changes in the loader of a run."""

    def __init__(self) -> None:
        self.history = History()
        self._rebinding = Rebinding()
        self._first: Snapshots | None = None
        """The first snapshot in this process."""
        self._begun: Snapshots = {}
        """Snapshot from the start of the current pass."""
        self._begun_values: dict[str, Any] = {}
        """Attributes that passes had changed by then."""
        self._latest: Snapshots | None = None
        """The last snapshot since the pass began; None before the first."""
        self._resumed_early = False
        """Whether the run was resumed after its first pass."""

    def begin(self, loader: object, length: int | None) -> Remembered:
        """Record that a pass is about to begin, and return the state of the loader."""
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
        return self._begin_from(loader, slots)

    def changed_outside(self, snapshots: Snapshots) -> list[str]:
        """Return what has changed since the end of the last epoch and may affect the data."""
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
        """Return what a resume after the first epoch could not know, one line each. Call it before `begin`."""
        found = self.changed_outside(take_snapshots(walk(loader))) if self._resumed_early else []
        self._resumed_early &= self._latest is None
        return [
            f"{path} is set between epochs, which the first epoch alone could not show; the data of the epoch "
            "after the resume may have differed from that of an uninterrupted run"
            for path in found
            if path not in self.history.outside
        ]

    def note(self, loader: object) -> list[Slot]:
        """Record what has changed since the pass began, and return all slots."""
        slots = list(walk(loader))
        snapshots = take_snapshots(slots)
        history = self.history
        rebound = self._rebinding.note(loader, history.rebound)
        inside, initial, lost_parts = set(history.inside), dict(history.initial), {**rebound.lost, **history.lost}
        streams = set(history.streams)
        for path, seen in snapshots.items():
            if seen.kind is not Kind.ITERATOR or mark_in(self._begun, path) != seen.mark:
                continue
            if self._begun[path].place != seen.place:
                streams.add(path)
            elif not seen.in_dataset and not seen.shared:
                lost_parts.setdefault(seen.owner, path)  # it may continue from pass to pass
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
            elif not kept.shared and not rebound.covers(path):
                lost_parts.setdefault(kept.owner, path)
        self._latest = snapshots
        self.history = replace(
            history,
            initial=initial,
            inside=tuple(sorted(inside)),
            lost=lost_parts,
            streams=tuple(sorted(streams)),
            rebound=rebound.initial,
        )
        return slots

    def add_stream(self, what: str) -> None:
        """Record something other than an attribute that continues from pass to pass."""
        self.history = replace(self.history, streams=tuple(sorted({*self.history.streams, what})))

    def seen(self) -> str:
        """Return a mark of the visible state of the loader at the start of the pass, without generators."""
        kinds = (Kind.PLAIN, Kind.BULK)
        return fingerprint([f"{path} {seen.mark}" for path, seen in self._begun.items() if seen.kind in kinds], 1 << 16)

    def now(self, loader: object) -> Remembered:
        """Record what has changed, and return the state of the loader."""
        return self._remembered(self.note(loader))

    def at_the_beginning(self, begun: Remembered) -> Remembered:
        """Return the state of the loader at the start of the pass, including attributes found to change since."""
        values = dict(self._begun_values)
        for path in self.history.inside:
            seen = self._begun.get(path)
            if path not in values and seen is not None and seen.kind is Kind.PLAIN:
                values[path] = {"plain": seen.plain}
        lost_too = {path for path, seen in self._begun.items() if seen.owner in self.history.lost}
        values = {path: value for path, value in values.items() if path not in lost_too}
        return Remembered(begun.generators, values, self._rebinding.at_the_beginning(self.history.rebound))

    def meet(self, loader: object, length: int | None, history: History) -> list[str]:
        """Take a snapshot of a rebuilt loader, before anything is restored.

        Returns:
            Differences, certain or possible, from the loader of the checkpoint, one line each.
        """
        self._first = take_snapshots(walk(loader))
        self._rebinding.meet(loader)
        # An object has the path that is found first, which may have led to another one then.
        alias = {path for path in history.build if path not in self._first and self._rebinding.leads_to(path)}
        history = replace(history, build={path: mark for path, mark in history.build.items() if path not in alias})
        return list(dict.fromkeys(_differences(history, self._first, length)))

    def recall_beginning(self, loader: object, history: History, begun: Remembered) -> None:
        """Restore a rebuilt loader to its state at the start of the current pass, as far as that is known.

        Raises:
            MismatchError: Its generators differ from those of the checkpoint.
        """
        self.history = history
        put_references(loader, begun.references)
        put_values(loader, begun.values)
        put_generators(loader, begun.generators, may_be_missing=True)
        self._begin_from(loader, list(walk(loader)))
        self._begun_values = dict(begun.values)

    def recall_now(self, loader: object, now: Remembered) -> list[str]:
        """Restore a loader to its state at the save, once its pass has reached that position.

        Attributes that the pass itself has changed are left alone.

        Returns:
            Paths of restored attributes. The loop's body, not the pass, had changed these.

        Raises:
            MismatchError: Its generators differ from those of the checkpoint.
        """
        self._rebinding.put_now(loader, now.references)
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
        """Restore a rebuilt loader to the state of the earlier one at the end of its pass.

        Attributes that its own state has changed since `meet` are left alone.

        Returns:
            What may differ from the earlier state, one line each.

        Raises:
            MismatchError: Its generators differ from those of the checkpoint.
        """
        met = self._first
        assert met is not None
        snapshots = take_snapshots(walk(loader))
        self._rebinding.put_between(loader, history.rebound, then.references)
        slots = {slot.path: slot for slot in walk(loader)}
        initial, outside, values = dict(history.initial), dict(history.outside), {}
        for path, value in then.values.items():
            if path in outside or mark_in(snapshots, path) != mark_in(met, path):
                continue
            # After a single pass, nothing else shows whether other code will change this.
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
                    outside[path] = met[path].mark  # seeded with the epoch number
        generators = {path: state for path, state in then.generators.items() if path not in outside}
        put_values(loader, values)
        put_generators(loader, generators, left_alone=outside.keys())
        self.history = replace(history, initial=initial, outside=outside)
        self._latest = None
        self._resumed_early = history.passes == 1
        return [
            f"{path} was seeded differently at the start of the run; it now has the state of the checkpoint, which "
            "is wrong if the loop seeds it for each epoch"
            for path in generators
            if history.passes == 1 and path in met and mark_in(met, path) not in (initial.get(path), "None")
        ]

    def _begin_from(self, loader: object, slots: list[Slot]) -> Remembered:
        self._rebinding.begin(loader)
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
        return Remembered(generators, values, self._rebinding.now(self.history.rebound))

    def _initial(self, path: str, snapshots: Snapshots) -> str:
        return mark_in(snapshots if self._first is None else self._first, path)


def _differences(history: History, snapshots: Snapshots, length: int | None) -> list[str]:
    return [
        *(
            f"{path}: {mark} in the checkpoint, {_now(path, snapshots, length)} now"
            for path, mark in history.build.items()
            if path not in history.initial
            and _now(path, snapshots, length) != mark
            # A call made once per epoch has not happened twice yet, so it cannot be recognized.
            and (history.passes > 1 or "epoch" not in path.lower())
        ),
        *(
            f"{path} is {mark_in(snapshots, path)}, as before the first epoch, but it changed between epochs; call "
            "set_epoch() and the like before batches(), not after end_epoch()"
            for path, mark in history.outside.items()
            if mark != mark_in(snapshots, path) == history.initial.get(path)
        ),
        *(
            f"{example} changed in earlier epochs and cannot be restored, nor can {counter}: data that depends on "
            "them differs from an uninterrupted run"
            for owner, example in history.lost.items()
            if example not in history.streams and (counter := _withheld(owner, history)) is not None
        ),
        *(
            f"{path} continues from pass to pass and cannot be restored: data that depends on it differs from "
            "an uninterrupted run"
            for path in history.streams
        ),
    ]


def _has(slot: Slot, saved: Mapping[str, Any]) -> bool:
    return "plain" in saved and content(slot.value) == saved


def _now(path: str, snapshots: Snapshots, length: int | None) -> str:
    return str(length) if path == LENGTH else mark_in(snapshots, path)


def _withheld(owner: str, history: History) -> str | None:
    """Return what is not restored of an object that cannot be saved completely; None if that hardly matters."""
    inside = [path for path in history.inside if path.startswith(f"{owner}." if owner else "")]
    counters = [path for path in inside if history.initial.get(path) not in ("True", "False")]
    if counters:
        return counters[0]
    return f"the rest of {owner}" if _is_sampler(owner) else None


def _changed(before: Snapshots, after: Snapshots) -> list[str]:
    return [path for path in {**before, **after} if mark_in(before, path) != mark_in(after, path)]


def _is_one_iterator(before: Snapshot | None, after: Snapshot | None) -> bool:
    """Return whether both are of one iterator, as far as known, whose position can be restored."""
    return before is not None and after is not None and before.kind is after.kind is Kind.BULK


def _can_be_put_back(before: Snapshot | None, after: Snapshot | None) -> bool:
    if after is None:
        return False
    if after.kind is Kind.GENERATOR:
        return before is None or before.kind is Kind.GENERATOR or before.mark == "None"
    kinds = (Kind.PLAIN, Kind.BULK)
    return after.kind in kinds and (before is None or before.kind in kinds)


def _is_build(path: str, seen: Snapshot | None) -> bool:
    """Return whether an attribute belongs to the configuration of a loader."""
    if seen is None or seen.in_dataset or seen.shared or path.rpartition(".")[-1] in _IMMATERIAL:
        return False
    return seen.kind in (Kind.PLAIN, Kind.OBJECT)


def _is_sampler(path: str) -> bool:
    return not {"sampler", "batch_sampler"}.isdisjoint(path.split("."))
