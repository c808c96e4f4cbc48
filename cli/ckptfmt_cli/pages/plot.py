"""`ckptfmt plot -o OUT.html`: the charts as a page."""

from __future__ import annotations

import html

from ckptfmt._core.ops.directory.curves import PlotReport
from ckptfmt._escaping import escape
from ckptfmt_cli.pages import page
from ckptfmt_cli.views.plot import plot_svg

__all__ = ["plot_page"]


def plot_page(report: PlotReport) -> str:
    """Return the page."""
    title = html.escape(escape(report.directory))
    return page(report.directory, f"<h1>{title}</h1>\n<section class='scroll'>{plot_svg(report)}</section>")
