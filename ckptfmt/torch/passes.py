"""Passes over a data loader: how one began, and how to come to the same place in it again.

A loader without a state of its own is brought there by repetition: the pass begins as it began before, and the batches
that were worked off are loaded once more and dropped. One that has `state_dict()` and `load_state_dict()`, such as
torchdata's StatefulDataLoader, is given its state and goes on at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from torch.utils.data import IterableDataset

from ckptfmt.errors import MismatchError
from ckptfmt.state import flatten_state
from ckptfmt.torch import rng
from ckptfmt.torch.generators import find_generators
from ckptfmt.torch.stateful import Stateful
from ckptfmt.torch.values import TorchAdapter

__all__ = ["LoaderState", "PassStart", "begin_pass", "loader_state", "resume_between_passes", "resume_pass"]

T = TypeVar("T")

_TORCHDATA = "torchdata.stateful_dataloader"
_PLACES = ("dataset_state", "dataset_iter_state")  # where torchdata keeps what a data set says of its place


@dataclass(frozen=True)
class LoaderState:
    """What a loader remembers, at one moment.

    Attributes:
        generators: States of the generators that the loader, its samplers and its data set keep, by where they are.
        workers_started: Its persistent workers run. They draw a seed when they start, and only then.
        own: What the loader's own `state_dict()` returned; None if it has none.
    """

    generators: Mapping[str, Any]
    workers_started: bool
    own: Any = None


@dataclass(frozen=True)
class PassStart:
    """How a pass over a loader began: all it takes to get the same batches in the same order.

    Attributes:
        random: States of the global generators just before `iter(loader)`.
        loader: State of the loader then, but for its own.
        batches: The loader's length; None if it has none.
    """

    random: rng.RandomState
    loader: LoaderState
    batches: int | None


def begin_pass(loader: Iterable[T]) -> tuple[PassStart, Iterator[T]]:
    """Begin a pass and say how it began."""
    start = PassStart(rng.capture(), _shared_state(loader), _length(loader))
    return start, iter(loader)


def loader_state(loader: object) -> LoaderState:
    """Return what a loader remembers. Any iterable will do; most remember nothing."""
    state = _shared_state(loader)
    own = _own_state(loader)
    if own is None:
        return state
    if _is_torchdata(loader) and isinstance(getattr(loader, "dataset", None), IterableDataset) and not _has_place(own):
        return state  # it would count the batches that it skips twice, and the next time skip too many
    return LoaderState(state.generators, state.workers_started, own)


def resume_pass(loader: Iterable[T], start: PassStart, consumed: int, now: LoaderState | None) -> Iterator[T]:
    """Return the rest of a pass that began as `start` says, behind its first `consumed` batches.

    The global generators are left anywhere: their states have to be set afterwards.

    Args:
        loader: The loader.
        start: How the pass began.
        consumed: How many batches were worked off.
        now: What the loader remembered then; None if it is not known.

    Raises:
        MismatchError: The loader is another one: its length, its generators, or it has fewer batches than
            were consumed.
    """
    length = _length(loader)
    if length != start.batches:
        raise _lost(f"{_count(start.batches)} in the checkpoint, {_count(length)} now")
    _start_workers(loader, start.loader)
    _restore_generators(loader, start.loader)
    rng.restore(start.random)
    own = now.own if now is not None else None
    if own is not None:
        _load_own(loader, own)
        iterator = iter(loader)
    else:
        iterator = iter(loader)
        dropped = sum(1 for _ in islice(iterator, consumed))
        if dropped < consumed:
            raise _lost(f"{consumed} batches were consumed, now there are {dropped}")
    if now is not None:
        _start_workers(loader, now)
        _restore_generators(loader, now)
    return iterator


def resume_between_passes(loader: object, state: LoaderState) -> None:
    """Bring a loader to the state that one of its kind had when a pass was over. The global generators stay.

    Raises:
        MismatchError: The loader is another one: its generators, or it takes no such state.
    """
    if state.own is not None:
        _load_own(loader, state.own)
        if _is_torchdata(loader) and isinstance(loader, Iterable):
            # It takes in a state with the next iterator that it makes, and draws for that. This is not the next pass.
            random = rng.capture()
            iter(loader)
            rng.restore(random)
    _start_workers(loader, state)
    _restore_generators(loader, state)


def _shared_state(loader: object) -> LoaderState:
    states = {path: generator.state_dict() for path, generator in find_generators(loader).items()}
    return LoaderState(states, _workers_started(loader))


def _start_workers(loader: object, state: LoaderState) -> None:
    if state.workers_started and not _workers_started(loader) and isinstance(loader, Iterable):
        random = rng.capture()
        iter(loader)  # starts the workers; the draw for their seed came earlier and must not come again
        rng.restore(random)


def _restore_generators(loader: object, state: LoaderState) -> None:
    found = find_generators(loader)
    here, there = len(found), len(state.generators)
    if here != there:
        raise _lost(f"{there} generators of its own in the checkpoint, {here} now")
    if found.keys() != state.generators.keys():
        raise _lost(f"its generators are at {_listed(state.generators)} in the checkpoint, at {_listed(found)} now")
    differences = {path: generator.difference(state.generators[path]) for path, generator in found.items()}
    for path, difference in differences.items():
        if difference is not None:
            raise _lost(f"{path}: {difference}")
    for path, generator in found.items():
        generator.load_state_dict(state.generators[path])


def _own_state(loader: object) -> Any:
    """Return what a loader says of its place; None if it says nothing.

    Having `state_dict` is not being stateful: wrappers have it whatever they wrap, and where that is no stateful
    loader, it raises or returns None. Nor is a state of use that the format cannot express. In all these cases the
    pass will be repeated.
    """
    if not isinstance(loader, Stateful):
        return None
    try:
        own = loader.state_dict()
        for _ in flatten_state({"own": own}, TorchAdapter(), numpy_is_plain=False):
            pass
    except Exception:  # noqa: BLE001 - it is the loader's code, and must not end the training
        return None
    return own


def _load_own(loader: object, own: Any) -> None:
    if not isinstance(loader, Stateful):
        raise _lost("with a state of its own in the checkpoint, without load_state_dict() now")
    try:
        loader.load_state_dict(own)
    except Exception as error:
        raise _lost(f"its load_state_dict() refuses the state in the checkpoint: {error!r}") from error


def _workers_started(loader: object) -> bool:
    # DataLoader keeps the iterator of persistent workers in this attribute, and has no public word for it. That of
    # torchdata keeps every iterator there, and its workers come with its state.
    return getattr(loader, "_iterator", None) is not None and not _is_torchdata(loader)


def _is_torchdata(loader: object) -> bool:
    # Not type(): a wrapper that passes itself off as the loader inside has the ways of that one.
    return any(kind.__module__.startswith(_TORCHDATA) for kind in loader.__class__.__mro__)


def _has_place(own: object) -> bool:
    """Say whether a state of torchdata's loader holds one of its data set or of an iterator over that."""
    if not isinstance(own, Mapping):
        return False
    return any(own.get(key) is not None for key in _PLACES) or any(map(_has_place, own.values()))


def _length(loader: object) -> int | None:
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # a DataLoader over an iterable data set without a length
        return None


def _count(batches: int | None) -> str:
    return "no fixed number of batches" if batches is None else f"{batches} batches"


def _listed(paths: Iterable[str]) -> str:
    return ", ".join(paths)


def _lost(difference: str) -> MismatchError:
    return MismatchError(
        "the place in the data cannot be found again",
        [f"loader: {difference}; build it with the data set, batch size and generator= of before"],
    )
