"""`PlotReport` as pictures: one chart for each metric, and one for the norms of the layers of each run."""

from __future__ import annotations

from collections.abc import Iterator

from ckptfmt._core.ops.directory.curves import Curve, PlotReport
from ckptfmt_cli.chart import CHART_STYLE, Line, chart, chart_height

__all__ = ["plot_svg"]

_WIDTH = 860
_GAP = 18


def plot_svg(report: PlotReport) -> str:
    """Return all charts, one below the other, as an SVG picture of its own."""
    parts = []
    top = _GAP
    for title, lines in _charts(report):
        parts.append(chart(title, report.unit, lines, width=_WIDTH, top=top))
        top += chart_height(lines, _WIDTH) + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'role="img">\n<style>{CHART_STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _charts(report: PlotReport) -> Iterator[tuple[str, list[Line]]]:
    for name in dict.fromkeys(curve.name for run in report.runs for curve in run.metrics):
        lines = [
            Line(run.run_id or "no run", curve.points)
            for run in report.runs
            for curve in run.metrics
            if curve.name == name
        ]
        yield name, lines
    for run in report.runs:
        if run.norms:
            of_run = f" of {run.run_id}" if len(report.runs) > 1 and run.run_id else ""
            yield f"layer norms{of_run}, relative to the first checkpoint", [_relative(item) for item in run.norms]


def _relative(curve: Curve) -> Line:
    """Return a norm in multiples of its first value, so that changes show in every layer."""
    first = next((value for _, value in curve.points if value > 0), 1.0)
    return Line(curve.name, [(place, value / first) for place, value in curve.points])
