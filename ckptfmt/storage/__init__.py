"""Where bytes live: exact ranged reads, and publication as a whole or not at all."""

from ckptfmt.storage.publishing import AtomicFile
from ckptfmt.storage.reading import LocalSource, Source, open_source
from ckptfmt.storage.temporary import clean_leftovers

__all__ = ["AtomicFile", "LocalSource", "Source", "clean_leftovers", "open_source"]
