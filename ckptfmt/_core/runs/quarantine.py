"""Damaged checkpoints out of the way, whole: of several files, none is listed any more, and none is lost."""

from __future__ import annotations

from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.storage.resolve import locate, name_of
from ckptfmt.errors import ChangedError, StorageError

__all__ = ["forget_cached", "is_at_rest", "set_aside"]


def is_at_rest(file: CheckpointReference) -> bool:
    """Say whether a checkpoint is still what it was when it was looked at, and nobody is seen to write to it."""
    store, _ = locate(file.path)
    try:
        same = file.version is not None and all(store.look(it.name) == it for it in file.files)
    except StorageError:
        return False
    return same and not any(store.is_being_written(it.name) for it in file.files)


def set_aside(file: CheckpointReference) -> str:
    """Put a checkpoint out of the way, and return the name that its first file has now.

    The first file goes first: it stands for all of them, and what is left without it is no checkpoint.

    Raises:
        ChangedError: It is not the same any more.
        StorageError: The first file is where it was; or, as the message then says, one of the others is.
    """
    store, _ = locate(file.path)
    names = []
    for it in file.files:
        if it.version is None:
            raise ChangedError(f"{store.path(it.name)}: cannot be set aside: whether it is the same is not known")
        names.append(name_of(store.set_aside(it.name, it.version)))
    return names[0]


def forget_cached(file: CheckpointReference) -> None:
    """See to it that the next read of a checkpoint comes from where it is durable."""
    store, name = locate(file.path)
    for it in (name, *(part.name for part in file.parts)):
        store.forget_cached(it)
