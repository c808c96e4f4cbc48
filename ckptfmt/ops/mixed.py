"""Checkpoints of a directory whatever their format: ours, and the `.pth` files of other training loops."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from ckptfmt.errors import CkptfmtError, StorageError
from ckptfmt.ops.sources import TensorFile, open_tensors
from ckptfmt.runs import EXTENSION, OURS, CheckpointFile, Look, Stamp, look_at_ours, scan, verified

__all__ = ["OTHER_EXTENSIONS", "look_at", "looks_at_all", "read_all", "scan_all", "verified_all"]

OTHER_EXTENSIONS = (".pth", ".pt")
"""Names under which training loops keep checkpoints of another format."""


def look_at(path: str, *, inert: Collection[str] = ()) -> CheckpointFile | None:
    """Return what a file tells as a checkpoint, whatever its format; None if it is gone.

    Args:
        path: The file.
        inert: See `ckptfmt.ops.sources.open_tensors`.
    """
    if path.endswith(EXTENSION):
        return look_at_ours(path)
    stamp = Stamp.of(path)
    try:
        with open_tensors(path, inert=inert) as file:
            return CheckpointFile(path, file.metadata, file.identity, stamp=stamp)
    except StorageError as error:
        return CheckpointFile(path, error=error, stamp=stamp) if os.path.lexists(path) else None
    except CkptfmtError as error:
        return CheckpointFile(path, error=error, stamp=stamp)


def looks_at_all(inert: Collection[str] = ()) -> Mapping[str, Look]:
    """Return how files are looked into, by the end of their names (see `ckptfmt.runs.scan`).

    Args:
        inert: See `ckptfmt.ops.sources.open_tensors`.
    """
    return {**OURS, **dict.fromkeys(OTHER_EXTENSIONS, partial(look_at, inert=inert))}


def scan_all(
    directory: str | os.PathLike[str], known: Collection[CheckpointFile] = (), *, inert: Collection[str] = ()
) -> tuple[CheckpointFile, ...]:
    """Return the checkpoints that are directly in a directory, of any format, by name (see `ckptfmt.runs.scan`).

    Args:
        directory: The directory.
        known: See `ckptfmt.runs.scan`.
        inert: See `ckptfmt.ops.sources.open_tensors`.

    Raises:
        StorageError: The directory cannot be listed.
    """
    return scan(directory, known, looks_at_all(inert))


def verified_all(
    file: CheckpointFile, progress: Callable[[int], None] | None = None, *, inert: Collection[str] = ()
) -> CheckpointFile:
    """Return what is known of a usable checkpoint after every byte of it was read (see `ckptfmt.runs.verified`).

    A file without digests is read to its end: `verified` then says no more than that it can be.

    Args:
        file: The checkpoint.
        progress: Called with the number of bytes that were read.
        inert: See `ckptfmt.ops.sources.open_tensors`.
    """
    if file.path.endswith(EXTENSION):
        return verified(file, progress)
    try:
        with open_tensors(file.path, inert=inert) as opened:
            read_all(opened, progress)
    except CkptfmtError as error:
        return replace(file, error=error)
    return replace(file, verified=True)


def read_all(file: TensorFile, progress: Callable[[int], None] | None = None) -> None:
    """Read every tensor and every tree of a file, so that all that its format can check is checked.

    Raises:
        CkptfmtError: Something cannot be read.
    """
    for part in file.parts.values():
        part.tree()
        for name in part.tensors:
            for chunk in part.chunks(name):
                data = chunk()
                if progress is not None:
                    progress(len(data))
    file.finish()
