"""What the loop needs of a framework: its random generators, and a tracker of the passes over a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from ckptfmt._core.training.loop.progress import P, RandomState, S

__all__ = ["Generators", "Tracker", "TrackerFactory"]

T = TypeVar("T")


class Generators(Protocol):
    """The global random generators that a training loop draws from."""

    def capture(self) -> RandomState:
        """Return their states."""

    def same(self, one: RandomState, other: RandomState, /) -> bool:
        """Return whether two states from `capture` are equal."""

    def restore(self, state: RandomState) -> None:
        """Set the generators to states from `capture`.

        Raises:
            MismatchError: A generator does not accept its state. No generator was changed.
        """


class Tracker(Protocol[S, P]):
    """Tracks the successive passes of a run over its loader."""

    def begin(self, loader: Iterable[T], then: S | None = None) -> Iterator[T]:
        """Begin a pass and return its batches.

        Args:
            loader: The loader.
            then: State of the loader in the last pass, if another process made that pass.

        Raises:
            MismatchError: The loader differs.
        """

    def resume(self, loader: Iterable[T], position: P, now: S) -> tuple[Iterator[T], int]:
        """Return the remaining batches of a pass that another process began, and the number of batches done.

        This leaves the global generators in arbitrary states: set them afterwards.

        Args:
            loader: The loader.
            position: The position in the pass.
            now: State of the loader at that position.

        Raises:
            MismatchError: The loader differs.
        """

    def end(self) -> None:
        """Note that the epoch is over."""

    def finish(self) -> None:
        """Report what no further epoch will show."""

    def state(self) -> S | None:
        """Return the state of the loader now; None if this process has begun no pass."""

    def position(self, epoch_random: RandomState, consumed: int) -> P | None:
        """Return the position in the current pass. Call `state` first.

        Args:
            epoch_random: States of the global generators when the epoch began.
            consumed: Number of batches done in the pass.
        """


class TrackerFactory(Protocol[S, P]):
    """Makes a tracker."""

    def __call__(self, *, allow_mismatch: bool) -> Tracker[S, P]:
        """Return a tracker. With `allow_mismatch` it reports a loader that differs and uses it; otherwise it raises."""
