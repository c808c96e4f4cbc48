"""Passes over a data loader: how one began, and how to return to a position in it.

A loader without a state of its own gets there by repetition: the pass begins as before, the finished batches are loaded
again and dropped, and some of them are compared with their recorded fingerprints. A loader with `state_dict()` and
`load_state_dict()`, such as torchdata's StatefulDataLoader, loads its state and continues at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.loader.beginnings import Beginning, Orders, Verdict
from ckptfmt._core.torch.loader.indices import IndexRecord
from ckptfmt._core.torch.loader.kinds import (
    dataloaders,
    has_started,
    has_workers,
    is_sequential,
    is_steady,
    is_torchdata,
    length_of,
    streams,
    workers_started,
)
from ckptfmt._core.torch.loader.memory import History, LoaderMemory, Remembered
from ckptfmt._core.torch.loader.own_state import load_own, own_state
from ckptfmt._core.torch.loader.recall import lost, undisturbed
from ckptfmt._core.torch.loader.repetition import Repeat, Repetition
from ckptfmt._core.torch.loader.sources import IN_PLACE, held_source, order_of
from ckptfmt._core.torch.loader.watch import HEAD, BatchMarks, Head, Watch, repeat
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.stateful import Stateful
from ckptfmt.errors import MismatchError

__all__ = ["EpochPosition", "LoaderState", "LoaderTracker", "PassStart"]

T = TypeVar("T")

_START_OVER = (
    "its persistent workers start over: their random draws, such as augmentation, differ from an uninterrupted run; "
    "for an exact resume, set persistent_workers=False"
)


@dataclass(frozen=True)
class LoaderState:
    """State of a loader at one moment.

    Attributes:
        remembered: Its generators, and what passes have changed in it.
        history: Its observed behaviour; empty at the start of a pass.
        workers_started: Whether its persistent workers run. They draw a seed only when they start.
        own: Result of the loader's own `state_dict()`; None without one.
        orders: Beginnings of its passes; empty at the start of a pass.
    """

    remembered: Remembered
    history: History
    workers_started: bool
    own: Any = None
    orders: Orders = field(default_factory=Orders)


@dataclass(frozen=True)
class PassStart:
    """Start of a pass over a loader: everything needed to get the same batches in the same order.

    Attributes:
        random: States of the global generators just before `iter(loader)`.
        loader: State of the loader at that point, without its own `state_dict()`.
        batches: Length of the loader; None without one.
        order: Fingerprint of all batches, if the loader is a list, tuple, tensor or array of them.
        resumed: Whether this is the first pass after a resume.
        seen: Mark of the visible state of the loader.
    """

    random: rng.RandomState
    loader: LoaderState
    batches: int | None
    order: str = ""
    resumed: bool = False
    seen: str = ""


@dataclass(frozen=True)
class EpochPosition:
    """A position in an unfinished epoch.

    Attributes:
        epoch_random: States of the global generators at the start of the epoch, before the pass.
        start: Start of the pass.
        consumed: Number of batches done.
        mark: Fingerprints of some of them.
    """

    epoch_random: rng.RandomState
    start: PassStart
    consumed: int
    marks: BatchMarks = field(default_factory=BatchMarks)


class LoaderTracker:
    """Tracks the successive passes of a run over its loader.

    Args:
        allow_mismatch: Whether to report and use a loader that does not fit the checkpoint, instead of raising.
    """

    def __init__(self, *, allow_mismatch: bool = False) -> None:
        self._allow_mismatch = allow_mismatch
        self._memory = LoaderMemory()
        self._watch = Watch()
        self._warned_of_workers = False
        self._start: PassStart | None = None
        self._loader: Iterable[object] | None = None
        self._orders = Orders()
        self._indices = IndexRecord()
        self._is_noted = False
        """Whether the first batches of the current pass are in `_orders`."""
        self._resumed = False
        self._ended = ""
        """Fingerprint of the list of batches at the end of the last pass."""

    @property
    def begun(self) -> bool:
        """Whether this process has begun a pass."""
        return self._loader is not None

    def begin(self, loader: Iterable[T], then: LoaderState | None = None) -> Iterator[T]:
        """Begin a pass and return its batches.

        Args:
            loader: The loader.
            then: State of the loader in the last pass, if another process made that pass.

        Raises:
            MismatchError: The loader differs: in its generators, or it does not accept the state.
        """
        if then is not None:
            try:
                self._recall_between(loader, then)
            except MismatchError as error:
                self._unless_allowed(error, "passes begin as in a new run")
        for line in self._memory.overlooked(loader):
            notify(f"loader: {line}")
        self._note_streams(loader)
        remembered = self._memory.begin(loader, length_of(loader))
        state = LoaderState(remembered, History(), workers_started(loader))
        order = order_of(loader)
        seen = "" if order else self._memory.seen()
        self._resumed |= then is not None
        self._start = PassStart(rng.capture(), state, length_of(loader), order, then is not None, seen)
        iterator = iter(loader)
        self._indices = IndexRecord(loader, iterator)
        return self._continue(loader, iterator, BatchMarks(), 0)

    def resume(self, loader: Iterable[T], position: EpochPosition, now: LoaderState) -> tuple[Iterator[T], int]:
        """Return to the position in a pass that another process had reached.

        This leaves the global generators in arbitrary states: set them afterwards.

        Args:
            loader: The loader.
            position: The position in the pass.
            now: State of the loader at that position.

        Returns:
            The remaining batches, and the number of batches done: 0 if the loader differs and that is allowed, because
            the pass then starts over.

        Raises:
            MismatchError: The loader differs: in its length, generators or batches, or it has fewer batches than were
                consumed.
        """
        try:
            iterator = self._fast_forward(loader, position, now)
        except MismatchError as error:
            self._unless_allowed(error, "the pass starts over")
            self._memory = LoaderMemory()
            return self.begin(loader), 0
        self._start = position.start
        self._orders = now.orders
        self._resumed = True
        batches = self._continue(loader, iterator, position.marks, position.consumed)
        if now.own is not None:
            batches = self._compared(batches, position, streams(loader))
        return batches, position.consumed

    def end(self) -> None:
        """Record the end of the epoch."""
        if self._start is not None:
            self._memory.note(self._loader)
            self._note_beginning(self._watch.head())
            self._ended = order_of(self._loader)
        self._start = None

    def finish(self) -> None:
        """Report what no further epoch will show."""
        if self._orders.repeated and not is_sequential(self._loader):
            notify(
                "loader: the last epoch began like the only one before the resume; unless its order is meant to be the "
                "same, it could not be restored"
            )

    def state(self) -> LoaderState | None:
        """Return the state of the loader now; None if this process has begun no pass."""
        if self._loader is None:
            return None
        remembered = self._memory.now(self._loader)
        own = own_state(self._loader)
        if own is not None:
            self._warn_of_workers(self._loader)
        started = workers_started(self._loader)
        return LoaderState(remembered, self._memory.history, started, own, self._orders)

    def position(self, epoch_random: rng.RandomState, consumed: int) -> EpochPosition | None:
        """Return the position in the current pass. Call `state` first."""
        start = self._start
        if start is None:
            return None
        remembered = self._memory.at_the_beginning(start.loader.remembered)
        start = replace(start, loader=replace(start.loader, remembered=remembered))
        return EpochPosition(epoch_random, start, consumed, self._watch.marks())

    def _continue(self, loader: Iterable[T], iterator: Iterator[T], marks: BatchMarks, consumed: int) -> Iterator[T]:
        self._loader = loader
        on_head = None if len(marks.head) == HEAD else self._note_beginning
        self._is_noted = on_head is None
        rows = isinstance(loader, Stateful)
        self._watch = Watch(steady=is_steady(loader), marks=marks, rows=rows, on_head=on_head)
        return self._watch.batches(iterator, consumed)

    def _compared(self, batches: Iterator[T], position: EpochPosition, is_stream: bool) -> Iterator[T]:
        """Yield the batches after a resume by the loader's own state; report those that come again or are missing.

        Raises:
            MismatchError: The first batch was trained on before the save.
        """
        repetition = Repetition(position.marks.known, position.marks.rows)
        number = position.consumed
        reported = False
        for number, batch in enumerate(batches, position.consumed + 1):
            found = None if reported else repetition.find(batch)
            if found is not None:
                reported = True
                self._judge_repetition(found, first=number == position.consumed + 1)
            yield batch
        if not is_stream and position.start.batches not in (None, number):
            notify(
                f"loader: the pass resumed after {position.consumed} batches ended after {number}, not "
                f"{position.start.batches}: its own state_dict() left batches out, or repeated some"
            )

    def _judge_repetition(self, found: Repeat, *, first: bool) -> None:
        wrong = f"{found.what}: its own state_dict() does not restore the order or the position"
        if first and found.is_certain:
            self._unless_allowed(lost(wrong), "the epoch continues")
        else:
            notify(f"loader: {wrong}, unless the data contains duplicates")

    def _note_beginning(self, head: Head) -> None:
        """Record the first batches of the pass, and judge them if it is the first after a resume.

        Raises:
            MismatchError: It repeats an earlier pass, although passes differed.
        """
        start = self._start
        if self._is_noted or start is None:
            return
        self._is_noted = True
        new, known = (Beginning(head, start.seen), Beginning(self._indices.head, start.seen)), self._orders
        if start.resumed:
            self._judge(known.judge(*new))
        if known.tells_of_repetition(*new):
            notify(
                "loader: the first epoch after the resume repeated the batches of the one before, this one differs: "
                "unless that is intended, it used wrong batches, because their order could not be restored"
            )
        self._orders = known.followed_by(*new, resumed=start.resumed)

    def _judge(self, verdict: Verdict) -> None:
        repeats = "this epoch begins like an earlier one, although the epochs of the run differed"
        if verdict is Verdict.WRONG:
            error = lost(f"{repeats}: the state behind the data order could not be restored")
            self._unless_allowed(error, "the epoch continues")
        elif verdict is Verdict.DOUBTFUL:
            notify(f"loader: {repeats}; unless that is intended, its order could not be restored")

    def _note_streams(self, loader: object) -> None:
        """Record the source of the batches, if it continues from pass to pass and cannot be restored."""
        held = held_source(loader)
        if held is not None:
            self._memory.add_stream(f"the {held} that it reads from")
        if loader is self._loader and type(loader) is list and self._ended != order_of(loader):
            if self._resumed and IN_PLACE not in self._memory.history.streams:
                notify(f"loader: {IN_PLACE} differs from an uninterrupted run: it was rebuilt after the resume")
            self._memory.add_stream(IN_PLACE)

    def _fast_forward(self, loader: Iterable[T], position: EpochPosition, now: LoaderState) -> Iterator[T]:
        start, consumed = position.start, position.consumed
        length = length_of(loader)
        if length != start.batches:
            numbers = " (a loop over numbers is ckpt.steps(n), which can be extended)" if type(loader) is range else ""
            raise lost(f"{_count(start.batches)} in the checkpoint, {_count(length)} now{numbers}")
        others = self._memory.meet(loader, length, now.history)
        if now.own is None:
            _start_workers(loader, start.loader)
        self._memory.recall_beginning(loader, now.history, start.loader.remembered)
        rng.restore(start.random)
        if order_of(loader) != start.order:
            self._differ("the list of batches has other batches or another order now", others, excused=False)
        other = None
        if now.own is not None:
            load_own(loader, now.own)
            iterator = iter(loader)
            self._warn_of_workers(loader)
        else:
            iterator = iter(loader)
            self._indices = IndexRecord(loader, iterator)
            there, other = repeat(iterator, consumed, position.marks, steady=is_steady(loader))
            if there < consumed:
                raise lost(f"{consumed} batches were consumed, but it has only {there} now")
        _start_workers(loader, now)
        touched = self._memory.recall_now(loader, now.remembered)
        if other is not None and touched:
            notify(f"loader: the loop changes {touched[0]}: it was restored, but the data may differ")
        elif other is not None:
            which = f"batch {other} of the pass differs from the one trained on"
            others += [_START_OVER] if start.loader.workers_started else []
            self._differ(which, others, excused=start.loader.workers_started and not streams(loader))
        elif now.own is not None:
            for line in others:
                notify(f"loader: {line}")
        if start.loader.workers_started:
            _warn_of_persistent_workers()
        return iterator

    def _differ(self, which: str, others: list[str], *, excused: bool) -> None:
        if excused or self._allow_mismatch:
            notify(f"loader: the data order, or random values in the data, differ from the checkpoint: {which}")
        else:
            raise lost(f"the data order differs from the checkpoint's: {which}", *others)

    def _recall_between(self, loader: Iterable[object], then: LoaderState) -> None:
        self._orders = then.orders
        others = self._memory.meet(loader, length_of(loader), then.history)
        if then.own is not None:
            load_own(loader, then.own)
            # torchdata's loaders load a state into the next iterator that they create, and draw for that. This iterator
            # is not the next pass.
            random = rng.capture()
            for made in filter(is_torchdata, dataloaders(loader)):
                iter(made)
            rng.restore(random)
        others += self._memory.recall_between(loader, then.history, then.remembered)
        # Only now: with the generators of a new run, workers would repeat the draws of its first epoch.
        _start_workers(loader, then)
        for line in others:
            notify(f"loader: {line}")
        if then.workers_started:
            _warn_of_persistent_workers()

    def _warn_of_workers(self, loader: object) -> None:
        if self._warned_of_workers or not (is_torchdata(loader) and has_workers(loader)):
            return
        self._warned_of_workers = True
        if ranks.world().rank == 0:
            notify(
                "loader: its worker processes start with new random states after a resume; their draws are the same "
                "only if the state_dict() of the data set contains its generators"
            )

    def _unless_allowed(self, error: MismatchError, instead: str) -> None:
        if not self._allow_mismatch:
            raise error
        notify(f"{error}; allowed by allow_mismatch: {instead}")


def _start_workers(loader: object, state: LoaderState) -> None:
    if not state.workers_started:
        return
    for made in dataloaders(loader):
        if made.persistent_workers and not has_started(made):
            with undisturbed(loader):  # the draw for their seed came earlier and must not be repeated
                iter(made)


def _warn_of_persistent_workers() -> None:
    if ranks.world().rank == 0:
        notify(f"loader: {_START_OVER}")


def _count(batches: int | None) -> str:
    return "no fixed number of batches" if batches is None else f"{batches} batches"
