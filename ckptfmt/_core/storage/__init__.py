"""Where bytes live: exact ranged reads, and publication as a whole or not at all.

What writes is imported when it is asked for: most programs that look into a checkpoint write none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ckptfmt._core.storage.base import Source
from ckptfmt._core.storage.local.source import LocalSource, open_source

if TYPE_CHECKING:
    from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
    from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers

__all__ = ["AtomicFile", "LocalSource", "Source", "clean_leftovers", "open_source"]

_HOMES = {
    "AtomicFile": "ckptfmt._core.storage.local.publication.atomic_file",
    "clean_leftovers": "ckptfmt._core.storage.local.publication.leftovers",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value
