"""Passes over a data loader: how one began, and how to come to the same place in it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import TypeVar

import torch

from ckptfmt.errors import MismatchError
from ckptfmt.torch import rng

__all__ = ["LoaderState", "PassStart", "begin_pass", "loader_state", "repeat_pass", "restore_loader"]

T = TypeVar("T")

# Where DataLoader and its samplers keep a generator of their own.
_HOLDERS = ((), ("sampler",), ("batch_sampler",), ("batch_sampler", "sampler"))


@dataclass(frozen=True)
class LoaderState:
    """What a loader itself remembers between two passes.

    Attributes:
        generators: States of the loader's own generators and its samplers'.
        workers_started: Its persistent workers run. They draw a seed when they start, and only then.
    """

    generators: list[torch.Tensor]
    workers_started: bool


@dataclass(frozen=True)
class PassStart:
    """How a pass over a loader began: all it takes to get the same batches in the same order.

    Attributes:
        random: States of the global generators just before `iter(loader)`.
        loader: State of the loader then.
        batches: The loader's length; None if it has none.
    """

    random: rng.RandomState
    loader: LoaderState
    batches: int | None


def begin_pass(loader: Iterable[T]) -> tuple[PassStart, Iterator[T]]:
    """Begin a pass and say how it began."""
    start = PassStart(rng.capture(), loader_state(loader), _length(loader))
    return start, iter(loader)


def repeat_pass(loader: Iterable[T], start: PassStart, consumed: int) -> Iterator[T]:
    """Begin a pass as it began before, and drop the batches that were consumed then. Each is loaded once more.

    Raises:
        MismatchError: The loader is another one: its length, its generators, or it has fewer batches than
            were consumed.
    """
    length = _length(loader)
    if length != start.batches:
        raise _lost(f"{_count(start.batches)} in the checkpoint, {_count(length)} now")
    restore_loader(loader, start.loader)
    rng.restore(start.random)
    iterator = iter(loader)
    for dropped in range(consumed):
        try:
            next(iterator)
        except StopIteration:
            raise _lost(f"{consumed} batches were consumed, now there are {dropped}") from None
    return iterator


def loader_state(loader: object) -> LoaderState:
    """Return what a loader remembers. Any iterable will do; most remember nothing."""
    states = [generator.get_state() for generator in _generators(loader)]
    return LoaderState(states, _workers_started(loader))


def restore_loader(loader: object, state: LoaderState) -> None:
    """Bring a loader to the state that another one of its kind had.

    Raises:
        MismatchError: The loader has more or fewer generators, or a state is none.
    """
    if state.workers_started and not _workers_started(loader) and isinstance(loader, Iterable):
        random = rng.capture()
        iter(loader)  # starts the workers; the draw for their seed came earlier and must not come again
        rng.restore(random)
    generators = _generators(loader)
    if len(generators) != len(state.generators):
        raise _lost(f"{len(state.generators)} generators of its own in the checkpoint, {len(generators)} now")
    for generator, generator_state in zip(generators, state.generators, strict=True):
        try:
            generator.set_state(generator_state)
        except (RuntimeError, TypeError) as error:
            raise _lost(f"a state of one of its generators is none ({error})") from error


def _generators(loader: object) -> list[torch.Generator]:
    found: list[torch.Generator] = []
    for names in _HOLDERS:
        holder = loader
        for name in names:
            holder = getattr(holder, name, None)
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and all(generator is not other for other in found):
            found.append(generator)
    return found


def _workers_started(loader: object) -> bool:
    # DataLoader keeps the iterator of persistent workers in this attribute, and has no public word for it.
    return getattr(loader, "_iterator", None) is not None


def _length(loader: object) -> int | None:
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # a DataLoader over an iterable data set without a length
        return None


def _count(batches: int | None) -> str:
    return "no fixed number of batches" if batches is None else f"{batches} batches"


def _lost(difference: str) -> MismatchError:
    return MismatchError(
        "the place in the data cannot be found again",
        [f"loader: {difference}; build it with the data set, batch size and generator= of before"],
    )
