"""Zip archives: of NumPy's arrays, or of PyTorch."""

from __future__ import annotations

import struct
from collections.abc import Collection

from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.pth.reading import refuse_code
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError

__all__ = ["open_file"]

_LOCAL_HEADER_BYTES = 30
_ARRAY = b".npy"


def open_file(source: Source, *, inert: Collection[str] = ()) -> TensorFile:
    """Return the arrays or the state of a zip archive, by the name of its first member: NumPy's are all `*.npy`.

    Args:
        source: The file.
        inert: See `pth.reading.read_state`.

    Raises:
        ForeignFileError: It is a valid file of neither.
        UnsafeInputError: It asks for code to be run.
        StorageError: It cannot be read.
    """
    if _holds_arrays(source):
        from ckptfmt._core.interop.readers import npz

        try:
            return npz.open_file(source, inert=inert)
        except ForeignFileError:
            refuse_code(source, inert=inert)  # it is worse than broken, if it asks for code to be run
            raise
    from ckptfmt._core.interop.readers import pth

    return pth.open_file(source, inert=inert)


def _holds_arrays(source: Source) -> bool:
    head = source.read(0, min(source.size, _LOCAL_HEADER_BYTES))
    if head[:4] == b"PK\x05\x06":  # an archive of nothing
        return True
    if len(head) < _LOCAL_HEADER_BYTES:
        return False
    (name_bytes,) = struct.unpack_from("<H", head, 26)
    return source.read(_LOCAL_HEADER_BYTES, min(name_bytes, source.size - len(head))).endswith(_ARRAY)
