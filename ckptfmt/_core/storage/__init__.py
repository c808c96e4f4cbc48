"""Where bytes live: stores of objects, each published as a whole or not at all, and read by exact ranges.

`base` is the seam that everything above goes through, `resolve` finds the store of a path or URL, `local.store` is the
one that is a directory, `memory` the one that is unlike a disk.
"""

from ckptfmt._core.storage.base import Entry, Guard, Publication, Source, Store
from ckptfmt._core.storage.resolve import create, locate, open_source, store_for

__all__ = ["Entry", "Guard", "Publication", "Source", "Store", "create", "locate", "open_source", "store_for"]
