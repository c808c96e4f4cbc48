"""A name as somebody would choose it who wants to deceive whoever reads it on a terminal."""

from __future__ import annotations

__all__ = ["HOSTILE", "HOSTILE_FILE", "MARK", "is_harmless"]

MARK = "FORGED"
"""What a line begins with that a hostile name has forged."""

HOSTILE = f"a\x1b[2J\x1b]0;title\x07b\x9b1mc\rd\x7f\u202ee\u2066f\u200bg\u3164h\n{MARK} i"
"""Clears the screen, names the window, turns bold, overwrites, turns the direction, hides, and begins a line."""

HOSTILE_FILE = HOSTILE + "\udcff"
"""The same and a byte that is no text, as only names of files can have it."""


def is_harmless(text: str) -> bool:
    """Say whether nothing but line feeds steers the terminal, and no line was forged."""
    lines = text.split("\n")
    return all(line.isprintable() and not line.lstrip().startswith(MARK) for line in lines) and "\u3164" not in text
