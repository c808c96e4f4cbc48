"""Self-contained pages: one file each, nothing from the network, light and dark, and no name in them can run.

Python writes the facts, escaped; everything else is data in a block of JSON that the page's own script shows as text.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files

from ckptfmt import __version__
from ckptfmt._escaping import escape

__all__ = ["page", "read_asset"]


def read_asset(name: str) -> str:
    """Return the text of a file of this package."""
    return (files(__name__) / name).read_text(encoding="utf-8")


def page(title: str, body: str, script: str = "", data: object = None) -> str:
    """Return a page.

    Args:
        title: Its title, as plain text.
        body: HTML. Text from a file must be escaped in it.
        script: JavaScript that finds `data` in the element with the id `data`.
        data: What the script shows: anything that JSON can hold. Text in it is escaped.
    """
    # Inside a script element only these can end it, or begin a comment.
    document = json.dumps(_escaped(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    document = document.replace("<", "\\u003c")
    scripts = f'<script type="application/json" id="data">{document}</script>\n<script>\n{script}</script>\n'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html.escape(escape(title))}</title>
<style>
{read_asset("page.css")}</style>
</head>
<body>
{body}
<footer>made by ckptfmt {html.escape(__version__)}</footer>
{scripts if script else ""}</body>
</html>
"""


def _escaped(data: object) -> object:
    match data:
        case str():
            return escape(data)
        case list() | tuple():
            return [_escaped(item) for item in data]
        case dict():
            return {_escaped(key): _escaped(value) for key, value in data.items()}
    return data


_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
