"""Restoring the state of a loader, and protecting it during trial iterations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.live_objects.attributes import Slot, is_generator, walk
from ckptfmt._core.torch.live_objects.contents import attributes, has_attributes
from ckptfmt._core.torch.live_objects.generators import StatefulGenerator, make_generator
from ckptfmt._core.torch.live_objects.snapshots import content, mark_in, put_content, take_snapshots
from ckptfmt.errors import MismatchError

__all__ = ["lost", "put_generators", "put_values", "undisturbed"]


def put_values(loader: object, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Restore values from `snapshots.content`, by path. Values without a slot are skipped."""
    slots = {slot.path: slot for slot in walk(loader)}
    for path, saved in values.items():
        slot = slots.get(path) or _empty_slot(loader, slots, path)
        if slot is not None:
            put_content(slot, saved)


def put_generators(
    loader: object,
    states: Mapping[str, Any],
    *,
    left_alone: Collection[str] = (),
    may_be_missing: bool = False,
) -> None:
    """Set the generators of a loader, by path. A generator that is created at first use is created now.

    Args:
        loader: The loader.
        states: States of the generators.
        left_alone: Paths to leave alone, unchecked.
        may_be_missing: Whether a generator without a slot is allowed.

    Raises:
        MismatchError: Its generators differ. Nothing was changed.
    """
    slots = {slot.path: slot for slot in walk(loader)}
    found = {
        path: StatefulGenerator(slot.value)
        for path, slot in slots.items()
        if is_generator(slot.value) and not slot.shared and path not in left_alone
    }
    made = {}
    for path in states.keys() - found.keys():
        slot = slots.get(path) or _empty_slot(loader, slots, path)
        if slot is not None and slot.value is None and (generator := make_generator(states[path])) is not None:
            made[path] = (slot, generator)
    here, there = found.keys() | made.keys(), set(states)
    if may_be_missing:
        there = there & here
    if len(here) != len(there):
        raise lost(f"{len(states)} generators of its own in the checkpoint, {len(found)} now")
    if here != there:
        raise lost(f"its generators are at {_listed(there)} in the checkpoint, at {_listed(here)} now")
    for path, generator in found.items():
        difference = generator.difference(states[path])
        if difference is not None:
            raise lost(f"{path}: {difference}")
    for path, generator in found.items():
        generator.load_state_dict(states[path])
    for slot, generator in made.values():
        slot.put(generator.generator)


@contextmanager
def undisturbed(loader: object) -> Iterator[None]:
    """Leave a loader's counters and generators, and the global generators, as they were before the block."""
    random = rng.capture()
    slots = list(walk(loader))
    snapshots = take_snapshots(slots)
    generators = {slot.path: StatefulGenerator(slot.value).state_dict() for slot in slots if is_generator(slot.value)}
    # Worker processes have their own copies of the data set, so large objects in this process do not change.
    values = {slot.path: content(slot.value) for slot in slots if not slot.in_dataset and not is_generator(slot.value)}
    yield
    after = take_snapshots(walk(loader))
    changed = {path: value for path, value in values.items() if mark_in(after, path) != mark_in(snapshots, path)}
    put_values(loader, {path: value for path, value in changed.items() if value is not None})
    for slot in walk(loader):
        if is_generator(slot.value) and slot.path in generators:
            StatefulGenerator(slot.value).load_state_dict(generators[slot.path])
    rng.restore(random)


def lost(difference: str, *more: str) -> MismatchError:
    """Return the error for a loader that differs from that of the checkpoint."""
    advice = "build it with the same data set, batch size and generator=, or resume with allow_mismatch=['progress']"
    return MismatchError(
        "the position in the data cannot be restored",
        [f"loader: {difference}; {advice}", *(f"loader: {line}" for line in more)],
    )


def _empty_slot(loader: object, slots: Mapping[str, Slot], path: str) -> Slot | None:
    """Return the slot of an attribute that an object lacks so far; None without such an object."""
    parent, _, name = path.rpartition(".")
    holder = slots[parent].value if parent in slots else None if parent else loader
    if not name.isidentifier() or not has_attributes(holder) or name in attributes(holder):
        return None
    owner = slots[parent].owner if parent in slots else ""
    return Slot(path, holder, name, None, owner, False)


def _listed(paths: Collection[str]) -> str:
    return ", ".join(sorted(paths))
