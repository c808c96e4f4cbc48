"""One file of tensors in any format that is known, opened by the reader that its content asks for."""

from __future__ import annotations

import os
from collections.abc import Collection

from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.detect import Reader, detect
from ckptfmt._core.storage import Source, open_source

__all__ = ["open_source_tensors", "open_tensor_file"]


def open_tensor_file(path: str | os.PathLike[str], *, inert: Collection[str] = ()) -> TensorFile:
    """Open a checkpoint, a file of PyTorch, `.safetensors` or `.npz`; its content tells which it is.

    Args:
        path: The file.
        inert: See `pth.reading.read_state`.

    Raises:
        FormatError: It is not a valid ckptfmt file, or of a newer version.
        ForeignFileError: It is not a valid file of the other formats.
        UnsafeInputError: It asks for code to be run.
        StorageError: It cannot be read.
    """
    return open_source_tensors(open_source(path), inert=inert)


def open_source_tensors(source: Source, *, inert: Collection[str] = ()) -> TensorFile:
    """As `open_tensor_file`, of an open source. It is closed with the result, or if it cannot be opened."""
    try:
        return _open(detect(source), source, inert)
    except BaseException:
        source.close()
        raise


# A reader is imported when it is needed: those of other formats take their time.
def _open(reader: Reader, source: Source, inert: Collection[str]) -> TensorFile:
    match reader:
        case Reader.NATIVE:
            from ckptfmt._core.interop.readers import native

            return native.open_file(source, inert=inert)
        case Reader.ZIP:
            from ckptfmt._core.interop.readers import zip_archives

            return zip_archives.open_file(source, inert=inert)
        case Reader.SAFETENSORS:
            from ckptfmt._core.interop.readers import safetensors

            return safetensors.open_file(source, inert=inert)
        case Reader.NPZ:
            from ckptfmt._core.interop.readers import npz

            return npz.open_file(source, inert=inert)
        case Reader.PTH:
            from ckptfmt._core.interop.readers import pth

            return pth.open_file(source, inert=inert)
