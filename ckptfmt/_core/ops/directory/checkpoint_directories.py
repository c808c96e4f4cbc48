"""Directories that are one checkpoint each, such as the `checkpoint-500` of Hugging Face's Trainer."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ckptfmt._core.interop.huggingface.directory import is_checkpoint_directory
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.storage.base import Entry
from ckptfmt._core.storage.local.paths import children, is_directory, is_link
from ckptfmt._core.storage.resolve import is_url, store_for
from ckptfmt.errors import CkptfmtError, StorageError

__all__ = ["checkpoint_directories"]

_NAME = re.compile(r"checkpoint[-_][0-9]+")


def checkpoint_directories(
    directory: str | os.PathLike[str], *, inert: Collection[str] = ()
) -> tuple[CheckpointReference, ...]:
    """Return the checkpoint directories directly in a directory, by name, or the directory itself if it is one.

    The structure of their files is read, and no tensor. What cannot be used is among them, with the reason.

    Args:
        directory: The directory.
        inert: See `interop.opening.open_tensors`.

    Raises:
        StorageError: The directory cannot be listed.
    """
    if is_url(directory):
        return ()
    directory = store_for(directory).location  # of a `file` URL, the path
    if is_checkpoint_directory(directory):
        return (_look(Path(directory), inert),)
    return tuple(_look(path, inert) for path in _candidates(directory))


def _candidates(directory: str | os.PathLike[str]) -> Iterator[Path]:
    for path in children(directory):
        try:
            if _NAME.fullmatch(path.name) and is_directory(path) and is_checkpoint_directory(path):
                yield path
        except StorageError:  # gone meanwhile, or closed to us: not known to be a checkpoint
            continue


def _look(path: Path, inert: Collection[str]) -> CheckpointReference:
    name = str(path)
    try:
        with open_tensors(path, inert=inert) as file:
            return CheckpointReference(name, file.metadata, entry=_entry(path, file.file_bytes))
    except CkptfmtError as error:
        return CheckpointReference(name, error=error, entry=_entry(path, None))


def _entry(path: Path, nbytes: int | None) -> Entry:
    return Entry(path.name, nbytes, None, str(path.absolute()), link=is_link(path))
