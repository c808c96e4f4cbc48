"""Progress of a run, in the form of the component `progress`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.loader.beginnings import Beginning, Beginnings
from ckptfmt._core.torch.loader.memory import History, Remembered
from ckptfmt._core.torch.loader.position import EpochPosition, LoaderState, PassStart
from ckptfmt._core.torch.loader.watch import BatchMarks, Head
from ckptfmt._core.training import progress as training
from ckptfmt.errors import MismatchError

__all__ = ["Moment", "Progress", "progress_of", "progress_tree"]


Progress = training.Progress[LoaderState, EpochPosition]
"""Progress of a run in a loop over a DataLoader."""


def progress_tree(progress: Progress) -> dict[str, Any]:
    """Return progress in values that the format supports."""
    return {
        "step": progress.step,
        "epoch": progress.epoch,
        "loader": None if progress.loader is None else _loader_tree(progress.loader),
        "pass": None if progress.position is None else _position_tree(progress.position),
    }


def progress_of(tree: Mapping[str, Any]) -> Progress:
    """Return the progress in a tree from `progress_tree`.

    Raises:
        MismatchError: The tree is not from `progress_tree`.
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
        raise MismatchError("the position in the run cannot be restored", [difference]) from error


class Moment(NamedTuple):
    """State of one process at one moment of a run, besides its components."""

    progress: Progress
    random: rng.RandomState


def _loader_tree(loader: LoaderState) -> dict[str, Any]:
    return {
        "generators": loader.remembered.generators,
        "values": loader.remembered.values,
        "workers_started": loader.workers_started,
        "own": loader.own,
        "history": _history_tree(loader.history),
        "beginnings": _beginnings_tree(loader.beginnings),
    }


def _history_tree(history: History) -> dict[str, Any]:
    return {**asdict(history), "inside": list(history.inside), "streams": list(history.streams)}


def _position_tree(position: EpochPosition) -> dict[str, Any]:
    start, marks = position.start, position.marks
    return {
        "consumed": position.consumed,
        "batches": start.batches,
        "epoch_random": position.epoch_random,
        "random": start.random,
        "loader": _loader_tree(start.loader),
        "order": start.order,
        "resumed": start.resumed,
        "seen": start.seen,
        "marks": {
            "head": [list(batch) for batch in marks.head],
            "recent": [list(mark) for mark in marks.recent.items()],
            "random": [list(state) for state in marks.random.items()],
        },
    }


def _loader_of(tree: Mapping[str, Any]) -> LoaderState:
    remembered = Remembered(dict(tree["generators"]), dict(tree["values"]))
    history, beginnings = _history_of(tree["history"]), _beginnings_of(tree["beginnings"])
    return LoaderState(remembered, history, bool(tree["workers_started"]), tree["own"], beginnings)


def _history_of(tree: Mapping[str, Any]) -> History:
    marks = {name: dict(tree[name]) for name in ("initial", "outside", "lost", "build")}
    return History(passes=int(tree["passes"]), inside=tuple(tree["inside"]), streams=tuple(tree["streams"]), **marks)


def _position_of(tree: Mapping[str, Any]) -> EpochPosition:
    start = PassStart(
        dict(tree["random"]),
        _loader_of(tree["loader"]),
        tree["batches"],
        order=str(tree["order"]),
        resumed=bool(tree["resumed"]),
        seen=str(tree["seen"]),
    )
    marks = _marks_of(tree["marks"])
    for random in (tree["epoch_random"], tree["random"], *marks.random.values()):
        rng.check(random)
    return EpochPosition(dict(tree["epoch_random"]), start, int(tree["consumed"]), marks)


def _marks_of(tree: Mapping[str, Any]) -> BatchMarks:
    return BatchMarks(_head_of(tree["head"]), dict(tree["recent"]), dict(tree["random"]))


def _beginnings_tree(beginnings: Beginnings) -> dict[str, Any]:
    tree = asdict(beginnings)
    for name in ("first", "last"):
        tree[name]["head"] = [list(batch) for batch in tree[name]["head"]]
    return tree


def _beginnings_of(tree: Mapping[str, Any]) -> Beginnings:
    first, last = (Beginning(_head_of(tree[name]["head"]), str(tree[name]["seen"])) for name in ("first", "last"))
    flags = {name: bool(tree[name]) for name in ("alike", "differed", "returned", "repeated")}
    return Beginnings(first, last, int(tree["passes"]), **flags)


def _head_of(tree: Sequence[Sequence[str]]) -> Head:
    return tuple(tuple(map(str, batch)) for batch in tree)
