"""The checkpoints of a directory, by what is written inside them: found, put in order, and the run chosen (spec 14.5).

Names and file times say nothing about the order. Only the structure and the index of a file are read here; whether
its data are sound, `verified` finds out.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.runs.pins import is_pinned
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.storage.base import Entry, Store
from ckptfmt._core.storage.local.retries import Patience
from ckptfmt._core.storage.resolve import is_directory, is_gone, locate, store_for
from ckptfmt._core.system.workers import Workers
from ckptfmt._escaping import escape
from ckptfmt.errors import ChangedError, CkptfmtError, FormatError, StorageError, error_for

__all__ = [
    "EXTENSION",
    "NATIVE_ONLY",
    "Look",
    "choose_run",
    "distinct",
    "distinct_bytes",
    "look_at_native",
    "look_into",
    "merged",
    "newest_first",
    "place",
    "reason",
    "run_ids",
    "scan",
    "verified",
]

T = TypeVar("T")

EXTENSION = ".ckptfmt"  # spec section 17

_EARLIEST = datetime.min.replace(tzinfo=UTC)
# A time of creation further in the future than this is the work of a wrong clock. Shorter ones may come from a clock
# that shows local time as UTC.
_BELIEVED_FUTURE = timedelta(days=1)
_LOOKS = 5


Look = Callable[[str], CheckpointReference]
"""Returns what is known of a file from a look into it. Raises `StorageError` if it cannot be read."""


def look_at_native(path: str) -> CheckpointReference:
    """Return what the index of a checkpoint tells.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        with Checkpoint.open(path) as checkpoint:
            return CheckpointReference(path, checkpoint.metadata, checkpoint.identity)
    except FormatError as error:
        return CheckpointReference(path, error=error)


def look_into(path: str, look: Look) -> CheckpointReference | None:
    """Return what is known of one file from a look into it; None if it is gone, or a directory.

    Raises:
        StorageError: It cannot be read.
    """
    store, name = locate(path)
    entry = store.look(name)
    # The entry comes first: if the file is replaced in between, it does not fit and the file is read again next time.
    return None if entry is None else replace(look(path), entry=entry)


NATIVE_ONLY: Mapping[str, Look] = {EXTENSION: look_at_native}
"""How files are looked into, by the end of their names."""


def scan(
    directory: str | os.PathLike[str],
    known: Collection[CheckpointReference] = (),
    looks: Mapping[str, Look] = NATIVE_ONLY,
    patience: Patience | None = None,
) -> tuple[CheckpointReference, ...]:
    """Return the checkpoints that are directly in a directory, by name; directories are none.

    A file that cannot be used is among them, with the reason. One that is removed meanwhile is left out; what has
    taken its place is not: the directory is then looked at once more.

    Args:
        directory: The directory.
        known: What is known from before: files that are unchanged since then are not opened again.
        looks: Which files count, by the ends of their names: those named `*.ckptfmt` unless told otherwise.
        patience: How often to try what cannot be read; None: once.

    Raises:
        StorageError: The directory cannot be listed.
    """
    patience = Patience(pauses=()) if patience is None else patience
    store = store_for(directory)
    files = {file.name: file for file in known}
    for _ in range(_LOOKS):
        entries = {entry.name: entry for entry in patience(lambda: list(store.list()), store.location)}
        before, files = files, {}
        chosen = [(name, look) for name in sorted(entries) if (look := _look_for(name, looks)) is not None]
        jobs = [partial(_file, store, before.get(name), entries, name, look, patience) for name, look in chosen]
        gone = False
        for (name, _), file in zip(chosen, _results(store, jobs), strict=True):
            if file is not None:
                files[name] = file
            gone = gone or (file is None and is_gone(store.path(name)))
        if not gone:
            break
    return tuple(files.values())


def _results(store: Store, jobs: Sequence[Callable[[], T]]) -> Sequence[T]:
    """Return the results of jobs that look into files; over a network, several look at the same time."""
    if store.properties.local_reads:
        return [job() for job in jobs]
    with Workers(store.properties.connections, "ckptfmt-scan") as workers:
        return list(workers.in_order(jobs))


def _file(
    store: Store,
    before: CheckpointReference | None,
    entries: Mapping[str, Entry],
    name: str,
    look: Look,
    patience: Patience,
) -> CheckpointReference | None:
    """Return what is known of one file of a store; None if it is gone."""
    file = _known(before, entries) or _looked_at(store, entries[name], look, patience)
    return None if file is None else replace(file, pinned=is_pinned(store, file, entries))


def _look_for(name: str, looks: Mapping[str, Look]) -> Look | None:
    return next((look for end, look in looks.items() if name.endswith(end)), None)


def _known(file: CheckpointReference | None, entries: Mapping[str, Entry]) -> CheckpointReference | None:
    """Return what is known of a checkpoint if it is still the same; what could not be read is tried again."""
    if file is None or isinstance(file.error, StorageError) or file.version is None:
        return None
    return file if all(entries.get(it.name) == it for it in file.files) else None


def _looked_at(store: Store, entry: Entry, look: Look, patience: Patience) -> CheckpointReference | None:
    path = store.path(entry.name)

    def act() -> CheckpointReference | None:
        # What the listing tells of a file is older than what is read of it, as it should be (see `look_into`).
        return look_into(path, look) if entry.version is None else replace(look(path), entry=entry)

    try:
        return patience(act, path)
    except StorageError as error:
        # A name that leads nowhere is worth telling, one that is gone is not.
        return None if is_gone(path) or is_directory(path) else CheckpointReference(path, error=error, entry=entry)


def place(metadata: Metadata) -> tuple[int, int, int, datetime]:
    """Return where in its run a checkpoint stands: generation, step, epoch, time of creation. What is absent is first.

    What a program wrote that had to give way to another one is older than anything that the other wrote, even if it
    is steps ahead. Clocks decide only between checkpoints of the same generation, step and epoch.
    """
    return (
        -1 if metadata.generation is None else metadata.generation,
        -1 if metadata.step is None else metadata.step,
        -1 if metadata.epoch is None else metadata.epoch,
        metadata.created or _EARLIEST,
    )


def newest_first(files: Iterable[CheckpointReference], run_id: str | None) -> tuple[CheckpointReference, ...]:
    """Return the usable checkpoints of a run, the newest first; of equal ones, a link after the file itself."""
    ours = [file for file in files if file.usable and file.run_id == run_id]
    return tuple(sorted(ours, key=lambda file: (place(file.metadata), not file.link, file.name), reverse=True))


def merged(ours: Sequence[CheckpointReference], others: Iterable[CheckpointReference]) -> Iterator[CheckpointReference]:
    """Yield the checkpoints of a run, the newest first, and among them those that count epochs and nothing else.

    One of these comes before a checkpoint of the run only if it has more epochs finished.

    Args:
        ours: Those of the run, the newest first.
        others: Those of a training loop that notes no run, in any order.
    """

    def newness(file: CheckpointReference) -> tuple[int, bool, tuple[int, int, int, datetime], bool, str]:
        # Of two that are equally far, one that can be used comes first.
        return (file.metadata.epoch or 0, file.usable, place(file.metadata), not file.link, file.name)

    waiting = deque(sorted(others, key=newness, reverse=True))
    for file in ours:
        while waiting and (waiting[0].metadata.epoch or 0) > (file.metadata.epoch or 0):
            yield waiting.popleft()
        yield file
    yield from waiting


def distinct(files: Iterable[CheckpointReference]) -> tuple[CheckpointReference, ...]:
    """Return the files in their order, and of several names of one file only one: that of the file, not of a link."""
    files = tuple(files)
    chosen: dict[str, CheckpointReference] = {}
    for file in sorted(files, key=lambda file: file.link):
        chosen.setdefault(file.content_id, file)
    return tuple(file for file in files if chosen[file.content_id].path == file.path)


def distinct_bytes(files: Iterable[CheckpointReference]) -> int:
    """Return the length of files together, of those that have several names once."""
    return sum(file.file_bytes or 0 for file in distinct(files))


def run_ids(files: Iterable[CheckpointReference]) -> tuple[str, ...]:
    """Return the ids of the runs that have usable checkpoints, sorted."""
    return tuple(sorted({file.run_id for file in files if file.usable and file.run_id is not None}))


def choose_run(files: Iterable[CheckpointReference], now: datetime | None = None) -> str | None:
    """Return the run that goes on in a directory if none is named: that of the checkpoint that was created last.

    Steps of different runs can't be compared, so the times written inside decide. A time that is more than a day in
    the future was written by a wrong clock; a run that has no others gives way to one that has. Beyond that no
    content tells a slow clock from an old run: where machines disagree about the time, runs that share a directory
    need to be named.

    Args:
        files: The checkpoints; those that are not usable or belong to no run do not count.
        now: The present, aware; the clock's if None.

    Returns:
        Its id; None if no checkpoint belongs to a run.
    """
    latest = (datetime.now(UTC) if now is None else now) + _BELIEVED_FUTURE

    def age(file: CheckpointReference) -> tuple[bool, datetime, str]:
        created = file.metadata.created or _EARLIEST
        return (created <= latest, created, str(file.run_id))

    ours = [file for file in files if file.usable and file.run_id is not None]
    return max(ours, key=age).run_id if ours else None


def verified(file: CheckpointReference, progress: Callable[[int], None] | None = None) -> CheckpointReference:
    """Return what is known of a usable checkpoint after every byte of it was read: `verified`, or with an error.

    Args:
        file: The checkpoint.
        progress: Called with the number of logical bytes checked since its last call.
    """
    try:
        with Checkpoint.open(file.path) as checkpoint:
            if checkpoint.identity != file.identity:
                raise ChangedError(f"{file.path}: another file has taken its place meanwhile")
            problems = checkpoint.verify(progress)
        if problems:
            raise error_for(problems, file.path)
    except (FormatError, StorageError) as error:
        return replace(file, error=error)
    return replace(file, verified=True)


def reason(error: CkptfmtError, path: str) -> str:
    """Return why a file could not be used, without the path that the message begins with."""
    return str(error).removeprefix(f"{escape(path)}: ")
