"""Which reader takes a file: by its first bytes (`format.magic`), and only where these say nothing, by its name."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from ckptfmt._core.format.layout import PREAMBLE_MAGIC
from ckptfmt._core.format.magic import HEAD_BYTES, FileKind, kind_of
from ckptfmt._core.storage import Source, open_source
from ckptfmt.errors import ForeignFileError

__all__ = ["PTH_EXTENSIONS", "Reader", "detect", "detect_path"]

PTH_EXTENSIONS = (".pth", ".pt", ".bin", ".ckpt")
"""Names under which files of `torch.save` are kept."""


class Reader(StrEnum):
    """A reader of one format, by the name of its module in `interop.readers`."""

    NATIVE = "native"
    ZIP = "zip_archives"
    SAFETENSORS = "safetensors"
    NPZ = "npz"
    PTH = "pth"


_BY_KIND = {
    FileKind.CKPTFMT: Reader.NATIVE,
    FileKind.ZIP: Reader.ZIP,
    FileKind.SAFETENSORS: Reader.SAFETENSORS,
    FileKind.TAR: Reader.PTH,
    FileKind.PICKLE: Reader.PTH,
}
# Whose first bytes are none of these is left to its name: its reader says what is wrong with it.
_BY_EXTENSION = {
    ".safetensors": Reader.SAFETENSORS,
    ".npz": Reader.NPZ,
    **dict.fromkeys(PTH_EXTENSIONS, Reader.PTH),
}


def detect(source: Source) -> Reader:
    """Return the reader for a file; the native one for a file that no other format claims.

    Raises:
        ForeignFileError: It is known to be of a format that none of them reads.
        StorageError: It cannot be read.
    """
    head = source.read(0, min(source.size, HEAD_BYTES))
    kind = kind_of(head)
    if kind in _BY_KIND:
        return _BY_KIND[kind]
    damaged = head.startswith(PREAMBLE_MAGIC[:1])  # no other format's first bytes have it there
    named = Reader.NATIVE if damaged else _BY_EXTENSION.get(Path(source.path).suffix.lower(), Reader.NATIVE)
    if named is Reader.NATIVE and kind not in (FileKind.EMPTY, FileKind.UNKNOWN):
        raise ForeignFileError(f"it is {kind.value}", source.path, "checkpoint")
    return named


def detect_path(path: str | os.PathLike[str]) -> Reader:
    """As `detect`, of the file at a path."""
    with open_source(path) as source:
        return detect(source)
