"""What a file is by its first bytes: the one table of the formats that are known."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from ckptfmt._core.format.layout import PREAMBLE_MAGIC

__all__ = ["HEAD_BYTES", "FileKind", "kind_of"]

HEAD_BYTES = 512
"""How many bytes `kind_of` needs, of a file that has as many."""


class FileKind(Enum):
    """What a file is. The value says it in words."""

    CKPTFMT = "a ckptfmt file"
    ZIP = "a zip archive"
    SAFETENSORS = "a safetensors file"
    TAR = "a tar archive"
    PICKLE = "a pickle"
    SEVEN_ZIP = "a 7z archive"
    GZIP = "gzip-compressed data"
    BZIP2 = "bzip2-compressed data"
    XZ = "xz-compressed data"
    ZSTD = "zstd-compressed data"
    RAR = "a RAR archive"
    LZ4 = "lz4-compressed data"
    HDF5 = "an HDF5 file"
    NPY = "a single NumPy array (.npy)"
    GGUF = "a GGUF file"
    LFS = "a pointer of Git LFS, not the file itself"
    HTML = "a web page"
    EMPTY = "empty"
    UNKNOWN = "of no known format"


_NO_LENGTH = 1 << 40  # of no header, nor of one with a wrong length: eight bytes of something else


def _begins(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _NO_LENGTH


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


# The first that fits counts. A pickle of protocol 2 and above begins with b"\x80"; older ones with an opcode.
_TABLE: tuple[tuple[FileKind, Callable[[bytes], bool]], ...] = (
    (FileKind.EMPTY, lambda head: not head),
    (FileKind.CKPTFMT, _begins(PREAMBLE_MAGIC)),
    (FileKind.ZIP, _begins(b"PK")),
    (FileKind.SAFETENSORS, _is_safetensors),
    (FileKind.TAR, _is_tar),
    (FileKind.SEVEN_ZIP, _begins(b"7z\xbc\xaf\x27\x1c")),
    (FileKind.GZIP, _begins(b"\x1f\x8b")),
    (FileKind.BZIP2, _begins(b"BZh")),
    (FileKind.XZ, _begins(b"\xfd7zXZ\x00")),
    (FileKind.ZSTD, _begins(b"\x28\xb5\x2f\xfd")),
    (FileKind.RAR, _begins(b"Rar!")),
    (FileKind.LZ4, _begins(b"\x04\x22\x4d\x18")),
    (FileKind.HDF5, _begins(b"\x89HDF\r\n\x1a\n")),
    (FileKind.NPY, _begins(b"\x93NUMPY")),
    (FileKind.GGUF, _begins(b"GGUF")),
    (FileKind.LFS, _begins(b"version https://git-lfs")),
    (FileKind.HTML, _begins(b"<!DOCTYPE", b"<html")),
    (FileKind.PICKLE, _begins(b"\x80", b"(", b"]", b"}", b"c")),
)


def kind_of(head: bytes) -> FileKind:
    """Return what a file with these first bytes is, whatever its name.

    Args:
        head: The first `HEAD_BYTES` of the file, or all of a shorter one.
    """
    return next((kind for kind, recognizes in _TABLE if recognizes(head)), FileKind.UNKNOWN)
