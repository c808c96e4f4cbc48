"""How far a run has come, as it is stored in the component `progress`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.loader.memory import History, Remembered
from ckptfmt._core.torch.loader.position import EpochPosition, LoaderState, PassStart
from ckptfmt._core.torch.loader.watch import BatchMark
from ckptfmt.errors import MismatchError

__all__ = ["Moment", "Progress"]


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimizer steps done since the start of the run.
        epoch: Epochs finished.
        loader: State of the loader now; None before the first pass.
        position: The place in the unfinished epoch; None between two epochs.
    """

    step: int = 0
    epoch: int = 0
    loader: LoaderState | None = None
    position: EpochPosition | None = field(default=None)

    @property
    def consumed(self) -> int:
        """Batches of the unfinished epoch that have been worked off."""
        return self.position.consumed if self.position is not None else 0

    def to_tree(self) -> dict[str, Any]:
        """Return it in values that the format expresses."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "loader": None if self.loader is None else _loader_tree(self.loader),
            "pass": None if self.position is None else _position_tree(self.position),
        }

    @staticmethod
    def from_tree(tree: Mapping[str, Any]) -> Progress:
        """Return what `to_tree` was called on.

        Raises:
            MismatchError: The tree was not made by `to_tree`.
        """
        try:
            return Progress(
                step=int(tree["step"]),
                epoch=int(tree["epoch"]),
                loader=None if tree["loader"] is None else _loader_of(tree["loader"]),
                position=None if tree["pass"] is None else _position_of(tree["pass"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            difference = f"progress: not written by a Checkpointer of this version: {error!r}"
            raise MismatchError("the place in the run cannot be restored", [difference]) from error


class Moment(NamedTuple):
    """What one process remembers of a moment of a run, beside its components."""

    progress: Progress
    random: rng.RandomState


def _loader_tree(loader: LoaderState) -> dict[str, Any]:
    return {
        "generators": loader.remembered.generators,
        "values": loader.remembered.values,
        "workers_started": loader.workers_started,
        "own": loader.own,
        "history": _history_tree(loader.history),
    }


def _history_tree(history: History) -> dict[str, Any]:
    return {**asdict(history), "inside": list(history.inside)}


def _position_tree(position: EpochPosition) -> dict[str, Any]:
    start, mark = position.start, position.mark
    return {
        "consumed": position.consumed,
        "batches": start.batches,
        "epoch_random": position.epoch_random,
        "random": start.random,
        "loader": _loader_tree(start.loader),
        "mark": None if mark is None else {**vars(mark), "random": list(mark.random)},
    }


def _loader_of(tree: Mapping[str, Any]) -> LoaderState:
    remembered = Remembered(dict(tree["generators"]), dict(tree["values"]))
    return LoaderState(remembered, _history_of(tree["history"]), bool(tree["workers_started"]), tree["own"])


def _history_of(tree: Mapping[str, Any]) -> History:
    marks = {name: dict(tree[name]) for name in ("initial", "outside", "lost", "build")}
    return History(passes=int(tree["passes"]), inside=tuple(tree["inside"]), **marks)


def _position_of(tree: Mapping[str, Any]) -> EpochPosition:
    start = PassStart(dict(tree["random"]), _loader_of(tree["loader"]), tree["batches"])
    mark = None if tree["mark"] is None else _mark_of(tree["mark"])
    for random in (tree["epoch_random"], tree["random"], *(mark.random if mark is not None else ())):
        rng.check(random)
    return EpochPosition(dict(tree["epoch_random"]), start, int(tree["consumed"]), mark)


def _mark_of(tree: Mapping[str, Any]) -> BatchMark:
    return BatchMark(int(tree["number"]), str(tree["fingerprint"]), tuple(tree["random"]))
