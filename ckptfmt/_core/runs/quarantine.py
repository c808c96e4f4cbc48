"""Quarantine of damaged checkpoints, with all of their files: none is listed any more, and none is lost."""

from __future__ import annotations

from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.storage.resolve import locate, name_of
from ckptfmt.errors import ChangedError, StorageError

__all__ = ["forget_cached", "is_at_rest", "quarantine"]


def is_at_rest(file: CheckpointReference) -> bool:
    """Return whether a checkpoint is unchanged since it was scanned and no process is known to write to it."""
    store, _ = locate(file.path)
    try:
        same = file.version is not None and all(store.look(it.name) == it for it in file.files)
    except StorageError:
        return False
    return same and not any(store.is_being_written(it.name) for it in file.files)


def quarantine(file: CheckpointReference) -> str:
    """Quarantine a checkpoint and return the new name of its first file.

    The first file goes first: it represents the checkpoint, and without it the other files are not a checkpoint.

    Raises:
        ChangedError: A file has changed.
        StorageError: A file cannot be quarantined; the message names it.
    """
    store, _ = locate(file.path)
    names = []
    for it in file.files:
        if it.version is None:
            raise ChangedError(f"{store.path(it.name)}: the version is unknown, so the file cannot be quarantined")
        names.append(name_of(store.quarantine(it.name, it.version)))
    return names[0]


def forget_cached(file: CheckpointReference) -> None:
    """Make the next read of a checkpoint bypass caches."""
    store, name = locate(file.path)
    for it in (name, *(part.name for part in file.parts)):
        store.forget_cached(it)
