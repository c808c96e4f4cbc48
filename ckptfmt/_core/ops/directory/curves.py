"""Metrics and layer norms over training, from the checkpoints in a directory."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from ckptfmt._core.catalog import scan_all
from ckptfmt._core.format.dtypes import kind_of
from ckptfmt._core.format.index import ROOT
from ckptfmt._core.interop.base import TensorInfo
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.ops.inspection.component_roles import Role
from ckptfmt._core.ops.inspection.inspect import report_of
from ckptfmt._core.ops.inspection.layers import layers_of
from ckptfmt._core.ops.progress import Progress, Report
from ckptfmt._core.ops.report_json import float_json
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.scan import distinct, newest_first, reason, run_ids
from ckptfmt._core.storage.resolve import is_gone
from ckptfmt.errors import CkptfmtError

__all__ = ["Curve", "PlotReport", "RunCurves", "read_curves"]

MOST_LAYERS = 12
"""Maximum number of groups of layers, unless there are more at the top."""


@dataclass(frozen=True)
class Curve:
    """The values of one number over training.

    Attributes:
        name: The metric or layer.
        points: Pairs of step (or epoch) and value, in training order.
    """

    name: str
    points: tuple[tuple[int, float], ...]

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `name`, `points` (array of `[place, value]`, see `float_json`)."""
        return {"name": self.name, "points": [[place, float_json(value)] for place, value in self.points]}


@dataclass(frozen=True)
class RunCurves:
    """The curves of one run.

    Attributes:
        run_id: The run; None for checkpoints that belong to no run.
        metrics: Its metrics.
        norms: The Euclidean norms of its layers; empty if they were not read.
    """

    run_id: str | None
    metrics: tuple[Curve, ...]
    norms: tuple[Curve, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: `run_id` (or null), `metrics` and `norms` (arrays, see `Curve.to_json`)."""
        return {
            "run_id": self.run_id,
            "metrics": [curve.to_json() for curve in self.metrics],
            "norms": [curve.to_json() for curve in self.norms],
        }


@dataclass(frozen=True)
class PlotReport:
    """Report of the metrics and layer norms of all runs in a directory.

    Attributes:
        directory: The directory, as it was named.
        unit: Unit of the horizontal axis: `step`, or `epoch` if a checkpoint records no steps.
        runs: The runs.
        skipped: Paths of unusable checkpoints, and why.
    """

    directory: str
    unit: str
    runs: tuple[RunCurves, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(run.metrics or run.norms for run in self.runs)

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"plot/1"`), `directory`, `unit` (`step` or `epoch`), `runs` (array, see
        `RunCurves.to_json`), `skipped` (array of objects with `path` and `reason`).
        """
        return {
            "report": "plot/1",
            "directory": self.directory,
            "unit": self.unit,
            "runs": [run.to_json() for run in self.runs],
            "skipped": [{"path": path, "reason": why} for path, why in self.skipped],
        }


def read_curves(
    directory: str | os.PathLike[str],
    *,
    run_id: str | None = None,
    norms: bool = False,
    inert: Collection[str] = (),
    progress: Report | None = None,
) -> PlotReport:
    """Return the metrics and layer norms of the runs in a directory.

    Args:
        directory: The directory.
        run_id: Only this run; None for all runs, and checkpoints without one.
        norms: Read the weights of every checkpoint and return the norms of their layers.
        inert: See `interop.opening.open_tensors`.
        progress: Called with the progress.

    Raises:
        StorageError: The directory cannot be listed.
    """
    files = distinct(scan_all(directory, inert=inert))
    ids: tuple[str | None, ...] = (run_id,) if run_id is not None else (*run_ids(files), None)
    groups = {name: tuple(reversed(newest_first(files, name))) for name in ids}
    placed = [file for group in groups.values() for file in group if file.metadata.step or file.metadata.epoch]
    unit = "step" if placed and all(file.metadata.step is not None for file in placed) else "epoch"
    skipped = [(file.path, reason(file.error, file.path)) for file in files if file.error is not None]
    reader = _Norms(placed if norms else [], inert, progress)
    runs = []
    for name, group in groups.items():
        there = [(place, file) for file in group if (place := _place(file, unit)) is not None]
        if there:
            there.sort(key=itemgetter(0))  # by steps and epochs they may be in another order
            found = reader.curves(there, skipped) if norms else ()
            runs.append(RunCurves(name, _metrics(there), found))
    return PlotReport(os.fspath(directory), unit, tuple(runs), tuple(skipped))


_Placed = Sequence[tuple[int, CheckpointReference]]


def _place(file: CheckpointReference, unit: str) -> int | None:
    return file.metadata.step if unit == "step" else file.metadata.epoch


def _metrics(files: _Placed) -> tuple[Curve, ...]:
    found: dict[str, list[tuple[int, float]]] = {}
    for place, file in files:
        for name, value in (file.metadata.metrics or {}).items():
            found.setdefault(name, []).append((place, value))
    return tuple(Curve(name, tuple(points)) for name, points in found.items())


@dataclass
class _Norms:
    """Reads the weights of checkpoints, one file after the other."""

    files: Sequence[CheckpointReference]
    inert: Collection[str]
    progress: Report | None
    _done: int = field(default=0, init=False)

    def curves(self, files: _Placed, skipped: list[tuple[str, str]]) -> tuple[Curve, ...]:
        """Return the norms of the layers over the training; what cannot be read is noted as skipped."""
        squares: list[tuple[int, dict[str, float]]] = []
        for place, file in files:
            try:
                squares.append((place, self._squares(file)))
            except CkptfmtError as error:
                if not is_gone(file.path):  # retention removes old ones meanwhile
                    skipped.append((file.path, reason(error, file.path)))
            self._done += file.file_bytes or 0
        names = dict.fromkeys(name for _, found in squares for name in found)
        groups = layers_of(names, MOST_LAYERS)
        curves: dict[str, list[tuple[int, float]]] = {group: [] for group in dict.fromkeys(groups.values())}
        for place, found in squares:
            sums: dict[str, float] = {}
            for name, value in found.items():
                sums[groups[name]] = sums.get(groups[name], 0.0) + value
            for group, total in sums.items():
                curves[group].append((place, math.sqrt(total)))
        return tuple(Curve(name, tuple(points)) for name, points in curves.items())

    def _squares(self, file: CheckpointReference) -> dict[str, float]:
        """Return the sum of the squares of each tensor of the weights, by component and name."""
        from ckptfmt._core.ops.inspection.stats import tensor_stats  # NumPy, which metrics do without

        with open_tensors(file.path, inert=self.inert) as opened:
            roles = {part.name: part.role for part in report_of(opened, file.path).components}
            weights = [item for item in opened.tensors if roles[item.component] is Role.WEIGHTS and _is_float(item)]
            stats = tensor_stats(opened, weights, self._told)
        return {
            _name(item.tensor): item.finite * (item.mean**2 + item.std**2)
            for item in stats
            if item.mean is not None and item.std is not None
        }

    def _told(self, made: Progress) -> None:
        if self.progress is not None:
            total = sum(file.file_bytes or 0 for file in self.files)
            self.progress(Progress(made.path, min(self._done + made.done_bytes, total), total))


def _is_float(tensor: TensorInfo) -> bool:
    return kind_of(tensor.dtype) == "f"


def _name(tensor: TensorInfo) -> str:
    return tensor.name if tensor.component == ROOT else f"{tensor.component}.{tensor.name}"
