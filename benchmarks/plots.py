"""Results as a picture: how many times the floor each contender takes."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.tables import Results
from benchmarks.workloads import WORKLOADS

__all__ = ["draw"]

_METRICS = {"save_s": "durable save", "restore_s": "restore until ready to train"}
_OURS, _OTHERS = "#1f6f8b", "#b9c4c9"


def draw(results: Results, directory: Path) -> None:
    """Write `NAME.svg` for each workload with saves and restores."""
    for workload in results.workloads():
        names = results.contenders(workload, "restore_s")
        if not names:
            continue
        figure, axes = pyplot.subplots(1, len(_METRICS), figsize=(10, 0.4 * len(names) + 1.2), layout="constrained")
        for axis, (metric, title) in zip(axes, _METRICS.items(), strict=True):
            ratios = {name: results.ratio(workload, name, metric) for name in names}
            shown = sorted(((ratio, name) for name, ratio in ratios.items() if ratio is not None), reverse=True)
            colours = [_OURS if name.startswith("ckptfmt") else _OTHERS for _, name in shown]
            bars = axis.barh([name for _, name in shown], [ratio for ratio, _ in shown], color=colours)
            axis.bar_label(bars, fmt="%.2f", padding=3)
            axis.axvline(1, color="black", linewidth=0.8)
            axis.margins(x=0.12)
            axis.set_title(f"{title}, x the floor", fontsize=10, loc="left")
            axis.spines[["top", "right"]].set_visible(False)
        figure.suptitle(WORKLOADS[workload].title, fontsize=11)
        figure.savefig(directory / f"{workload}.svg", metadata={"Date": None})
        pyplot.close(figure)
