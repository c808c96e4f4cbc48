"""The hint of an error about the name of a component."""

from __future__ import annotations

from collections.abc import Iterable

from ckptfmt._core.format.index import ROOT

__all__ = ["choice_of"]


def choice_of(names: Iterable[str]) -> str:
    """Return what to do about a name that does not exist."""
    named = [name for name in dict.fromkeys(names) if name != ROOT]
    return f"choose from: {', '.join(named)}" if named else "the file has no named components"
