"""The door to checkpoints of any format, files and directories."""

from __future__ import annotations

import os
from collections.abc import Collection

from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.files import open_tensor_file
from ckptfmt._core.runs.scan import EXTENSION
from ckptfmt._core.storage import store_for
from ckptfmt._core.storage.resolve import is_directory, is_url
from ckptfmt.errors import StorageError

__all__ = ["open_tensors"]


def open_tensors(path: str | os.PathLike[str], *, inert: Collection[str] = ()) -> TensorFile:
    """Open a checkpoint, a file of PyTorch, `.safetensors` or `.npz`; its content tells which it is.

    A directory is opened as the checkpoint that it is, if it is one of Hugging Face's.

    Args:
        path: The file or directory.
        inert: Names in its pickles to keep as inert data instead of refusing them (see
            `pth.reading.read_state`).

    Raises:
        FormatError: It is not a valid ckptfmt file, or of a newer version.
        ForeignFileError: It is not a valid file of the other formats.
        UnsafeInputError: It asks for code to be run.
        StorageError: It cannot be read.
    """
    if is_directory(path):
        return _open_directory(path, inert)
    return open_tensor_file(path, inert=inert)


def _open_directory(path: str | os.PathLike[str], inert: Collection[str]) -> TensorFile:
    # Imported when a directory is opened: it brings the reader of pickles, which takes its time.
    from ckptfmt._core.interop.huggingface.directory import is_checkpoint_directory, open_directory

    local = not is_url(path)
    if local:
        path = store_for(path).location  # of a `file` URL, the path
    if not (local and is_checkpoint_directory(path)):
        if any(entry.name.endswith(EXTENSION) for entry in store_for(path).list()):
            advice = f"name one of them, such as the newest: `ckptfmt latest {os.fspath(path)}`"
            raise StorageError(f"{os.fspath(path)}: is a directory of checkpoints; {advice}")
        if not local:
            raise StorageError(f"{os.fspath(path)}: names no object; give the URL of one, or copy the directory here")
    return open_directory(path, inert=inert)
