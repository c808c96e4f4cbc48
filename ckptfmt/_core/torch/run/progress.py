"""Progress of a run, in the form of the component `progress`."""

from __future__ import annotations

from dataclasses import asdict
from types import NoneType
from typing import Any, NamedTuple

import numpy as np

from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.live_objects.snapshots import is_content
from ckptfmt._core.torch.loader.beginnings import Beginning, Beginnings, Orders
from ckptfmt._core.torch.loader.memory import History, Remembered
from ckptfmt._core.torch.loader.position import EpochPosition, LoaderState, PassStart
from ckptfmt._core.torch.loader.repetition import Rows
from ckptfmt._core.torch.loader.watch import BatchMarks, Head
from ckptfmt._core.training.loop import progress as training
from ckptfmt._core.training.saved_fields import fields, list_of, mapping_of, pairs_of, unfit

__all__ = ["Moment", "Progress", "progress_of", "progress_tree"]


Progress = training.Progress[LoaderState, EpochPosition]
"""Progress of a run in a loop over a DataLoader."""
CycleProgress = training.CycleProgress[LoaderState, EpochPosition]
"""Progress of an endless series of rounds over a DataLoader."""


def progress_tree(progress: Progress) -> dict[str, Any]:
    """Return progress in values that the format supports."""
    return {
        "step": progress.step,
        "epoch": progress.epoch,
        "loader": None if progress.loader is None else _loader_tree(progress.loader),
        "pass": None if progress.position is None else _position_tree(progress.position),
        "loop": progress.loop,
        "cycles": [_cycle_tree(cycle) for cycle in progress.cycles],
        "stopped": progress.stopped,
        "target": progress.target,
    }


def progress_of(tree: object) -> Progress:
    """Return the progress in a tree from `progress_tree`.

    Raises:
        MismatchError: The tree is not from `progress_tree` of this version. The difference says where.
    """
    parts: dict[str, Any] = dict.fromkeys(("loader", "pass"), (dict, NoneType))
    parts |= {"step": int, "epoch": int, "loop": (str, NoneType), "cycles": list}
    tree = fields(tree, "progress", {**parts, "stopped": bool, "target": (int, NoneType)})
    loader, position = tree["loader"], tree["pass"]
    cycles = [_cycle_of(cycle, f"progress.cycles[{number}]") for number, cycle in enumerate(tree["cycles"])]
    return Progress(
        step=tree["step"],
        epoch=tree["epoch"],
        loader=None if loader is None else _loader_of(loader, "progress.loader"),
        position=None if position is None else _position_of(position, "progress.pass"),
        loop=_kind_of(tree["loop"], "progress.loop"),
        cycles=tuple(cycles),
        stopped=tree["stopped"],
        target=tree["target"],
    )


def _cycle_tree(cycle: CycleProgress) -> dict[str, Any]:
    return {
        "rounds": cycle.rounds,
        "loader": None if cycle.loader is None else _loader_tree(cycle.loader),
        "pass": None if cycle.position is None else _position_tree(cycle.position),
    }


def _cycle_of(tree: object, path: str) -> CycleProgress:
    parts: dict[str, Any] = dict.fromkeys(("loader", "pass"), (dict, NoneType))
    tree = fields(tree, path, {**parts, "rounds": int})
    if (tree["loader"] is None) != (tree["pass"] is None):
        raise unfit(path, "has only one of `loader` and `pass`")
    return CycleProgress(
        tree["rounds"],
        None if tree["loader"] is None else _loader_of(tree["loader"], f"{path}.loader"),
        None if tree["pass"] is None else _position_of(tree["pass"], f"{path}.pass", in_epoch=False),
    )


def _kind_of(kind: str | None, path: str) -> training.LoopKind | None:
    match kind:
        case None | "epochs" | "steps":
            return kind
    raise unfit(path, f"is {kind!r}")


class Moment(NamedTuple):
    """State of one process at one moment of a run, besides its components."""

    progress: Progress
    random: rng.RandomState


def _loader_tree(loader: LoaderState) -> dict[str, Any]:
    return {
        "generators": loader.remembered.generators,
        "values": loader.remembered.values,
        "references": loader.remembered.references,
        "workers_started": loader.workers_started,
        "own": loader.own,
        "history": _history_tree(loader.history),
        "orders": {name: _beginnings_tree(kept) for name, kept in vars(loader.orders).items()},
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
            "rows": {name: np.array(rows, np.int64) for name, rows in marks.rows.items()},
        },
    }


def _loader_of(tree: object, path: str) -> LoaderState:
    parts: dict[str, type] = dict.fromkeys(("generators", "values", "references", "history", "orders"), dict)
    tree = fields(tree, path, {**parts, "workers_started": bool, "own": object})
    remembered = Remembered(
        mapping_of(tree["generators"], f"{path}.generators", dict),
        mapping_of(tree["values"], f"{path}.values", dict),
        mapping_of(tree["references"], f"{path}.references", str),
    )
    for name, value in remembered.values.items():
        if not is_content(value):
            raise unfit(f"{path}.values", f"{name!r} has an unknown form")
    history = _history_of(tree["history"], f"{path}.history")
    orders = fields(tree["orders"], f"{path}.orders", {"batches": dict, "indices": dict})
    return LoaderState(
        remembered,
        history,
        tree["workers_started"],
        tree["own"],
        Orders(**{name: _beginnings_of(kept, f"{path}.orders.{name}") for name, kept in orders.items()}),
    )


def _history_of(tree: object, path: str) -> History:
    marks = ("initial", "outside", "lost", "build", "rebound")
    tree = fields(tree, path, {"passes": int, "inside": list, "streams": list, **dict.fromkeys(marks, dict)})
    return History(
        passes=tree["passes"],
        inside=tuple(list_of(tree["inside"], f"{path}.inside", str)),
        streams=tuple(list_of(tree["streams"], f"{path}.streams", str)),
        **{name: mapping_of(tree[name], f"{path}.{name}", str) for name in marks},
    )


def _position_of(tree: object, path: str, *, in_epoch: bool = True) -> EpochPosition:
    parts: dict[str, type] = dict.fromkeys(("epoch_random", "random", "loader", "marks"), dict)
    own: dict[str, type] = {"consumed": int, "order": str, "resumed": bool, "seen": str}
    tree = fields(tree, path, {**parts, **own, "batches": (int, NoneType)})
    start = PassStart(
        tree["random"],
        _loader_of(tree["loader"], f"{path}.loader"),
        tree["batches"],
        order=tree["order"],
        resumed=tree["resumed"],
        seen=tree["seen"],
    )
    marks = _marks_of(tree["marks"], f"{path}.marks")
    for random in (*([tree["epoch_random"]] if in_epoch else []), tree["random"], *marks.random.values()):
        rng.check(random)
    return EpochPosition(tree["epoch_random"], start, tree["consumed"], marks)


def _marks_of(tree: object, path: str) -> BatchMarks:
    tree = fields(tree, path, {"head": list, "recent": list, "random": list, "rows": dict})
    return BatchMarks(
        _head_of(tree["head"], f"{path}.head"),
        pairs_of(tree["recent"], f"{path}.recent", int, str),
        pairs_of(tree["random"], f"{path}.random", int, dict),
        _rows_of(tree["rows"], f"{path}.rows"),
    )


def _rows_of(tree: object, path: str) -> Rows:
    arrays = mapping_of(tree, path, np.ndarray)
    for name, array in arrays.items():
        if array.dtype != np.int64 or array.ndim != 1:
            raise unfit(f"{path}.{name}", f"is an array of {array.dtype} with {array.ndim} dimensions")
    return {name: tuple(array.tolist()) for name, array in arrays.items()}


def _beginnings_tree(beginnings: Beginnings) -> dict[str, Any]:
    tree = asdict(beginnings)
    for name in ("first", "last"):
        tree[name]["head"] = [list(batch) for batch in tree[name]["head"]]
    return tree


def _beginnings_of(tree: object, path: str) -> Beginnings:
    flags = ("alike", "differed", "returned", "repeated")
    tree = fields(tree, path, {"first": dict, "last": dict, "passes": int, **dict.fromkeys(flags, bool)})
    first, last = (_beginning_of(tree[name], f"{path}.{name}") for name in ("first", "last"))
    return Beginnings(first, last, tree["passes"], **{name: tree[name] for name in flags})


def _beginning_of(tree: object, path: str) -> Beginning:
    tree = fields(tree, path, {"head": list, "seen": str})
    return Beginning(_head_of(tree["head"], f"{path}.head"), tree["seen"])


def _head_of(batches: object, path: str) -> Head:
    head = tuple(tuple(list_of(batch, path, str)) for batch in list_of(batches, path, list))
    if not all(head):
        raise unfit(path, "has a batch without fingerprints")
    return head
