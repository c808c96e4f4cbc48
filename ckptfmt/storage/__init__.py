"""Where bytes live: exact ranged reads, and publication as a whole or not at all.

What writes is imported when it is asked for: most programs that look into a checkpoint write none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ckptfmt.storage.reading import LocalSource, Source, open_source

if TYPE_CHECKING:
    from ckptfmt.storage.leftovers import clean_leftovers
    from ckptfmt.storage.publishing import AtomicFile

__all__ = ["AtomicFile", "LocalSource", "Source", "clean_leftovers", "open_source"]

_HOMES = {"AtomicFile": "ckptfmt.storage.publishing", "clean_leftovers": "ckptfmt.storage.leftovers"}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value
