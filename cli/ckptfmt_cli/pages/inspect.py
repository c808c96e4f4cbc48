"""`ckptfmt inspect --html`: the content of a file as a page to search and sort."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ckptfmt._core.ops.inspection.inspect import InspectReport
from ckptfmt._core.ops.inspection.module_tree import component_trees
from ckptfmt._escaping import escape
from ckptfmt_cli.pages import page, read_asset
from ckptfmt_cli.text import count, size
from ckptfmt_cli.views.inspect import fact_texts
from ckptfmt_cli.views.state import resume_text

if TYPE_CHECKING:
    from ckptfmt._core.ops.inspection.stats import TensorStats

__all__ = ["inspect_page"]


def inspect_page(report: InspectReport, stats: Sequence[TensorStats] | None, now: datetime) -> str:
    """Return the page.

    Args:
        report: The content of the file.
        stats: Statistics of its tensors; None if they were not read.
        now: The present, aware.
    """
    document = report.to_json()
    data = {
        "tensors": document["tensors"],
        "components": document["components"],
        "totals": document["totals"],
        "tree": [tree.to_json() for tree in component_trees(report.components, report.tensors)],
        "stats": None if stats is None else [item.to_json() for item in stats],
    }
    body = "\n".join([_head(report), _facts(report, now), _components(report), _TENSORS])
    return page(report.path, body, read_asset("inspect.js"), data)


def _head(report: InspectReport) -> str:
    parameters = f", {count(report.parameters, 'parameter')}" if report.parameters else ""
    summary = f"{size(report.file_bytes)}, {count(len(report.tensors), 'tensor')}{parameters}"
    verdict = resume_text(report.state.resume)
    return f"<h1>{_text(report.path)}</h1>\n<p>{_text(summary)}</p>\n<p class='verdict'>{_text(verdict)}</p>"


def _facts(report: InspectReport, now: datetime) -> str:
    rows = "\n".join(
        f"<tr><th>{_text(label)}</th><td>{_text(text)}</td></tr>" for label, text in fact_texts(report, now)
    )
    return f"<section><h2>Facts</h2><table class='facts'>\n{rows}\n</table></section>"


def _components(report: InspectReport) -> str:
    largest = max((item.logical_bytes for item in report.components), default=1)
    rows = [
        (item.name, item.role.value, f"{item.tensors:,}", f"{item.elements:,}", item.logical_bytes, item.codec)
        for item in report.components
    ]
    rows += [(member.name, member.kind, "", "", member.logical_bytes, member.codec) for member in report.opaque]
    return f"""<section><h2>Components</h2>
<div class="scroll"><table>
<tr><th>component</th><th>role</th>{_numbers("th", ("tensors", "elements", "size"))}<th>share</th><th>codec</th></tr>
{_component_rows(rows, largest)}
</table></div>
<div id="dtypes"></div></section>"""


def _component_rows(rows: Iterable[tuple[str, str, str, str, int, str]], largest: int) -> str:
    return "\n".join(
        f"<tr><td class='name'>{_text(name)}</td><td>{_text(role)}</td>"
        f"{_numbers('td', (tensors, elements, size(nbytes)))}"
        f"<td class='share'><span style='width:{100 * nbytes / max(largest, 1):.1f}%'></span></td>"
        f"<td>{_text(codec)}</td></tr>"
        for name, role, tensors, elements, nbytes, codec in rows
    )


def _numbers(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag} class='number'>{_text(text)}</{tag}>" for text in texts)


def _text(text: str) -> str:
    return html.escape(escape(text))


_TENSORS = """<section><h2>Modules</h2><div id="tree" class="scroll"></div></section>
<section><h2>Tensors</h2>
<div class="controls">
<input type="search" id="search" placeholder="search: attn weight f32" aria-label="search tensors">
<select id="component" aria-label="component"><option value="">all components</option></select>
<span id="found" class="count"></span>
</div>
<div class="scroll"><table id="tensors"><thead><tr></tr></thead><tbody></tbody></table></div>
<p><button type="button" class="more" id="more" hidden></button></p>
<noscript><p>Modules and tensors need JavaScript. The page loads nothing from the network.</p></noscript>
</section>"""
