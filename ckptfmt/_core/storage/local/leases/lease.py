"""Leases: which process saves a run, and as which generation (spec, annex B).

A lease is a small JSON file beside the checkpoints, one for each run. Whoever resumes the run replaces it by one of the
next generation, under the lock of the directory. Whoever saves reads it again before each publication and each removal:
if it holds another claim than one's own, the run is another's, and nothing more may be published or removed.

Its holder keeps the file open and locked for as long as it lives, so that processes on the same machine know at once
whether it does. For other machines it touches the file now and then. Both are hints: what counts is the claim.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ckptfmt._core.format.digest import digest
from ckptfmt._core.storage.local import file_locks
from ckptfmt._core.storage.local.durability import flush_file
from ckptfmt._core.storage.local.file_locks import leads_to
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.permissions import give_to_removers
from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers
from ckptfmt._core.storage.local.publication.temporary import TemporaryFile
from ckptfmt._core.system.forks import OwnDescriptor
from ckptfmt._core.system.threads import Thread
from ckptfmt.errors import LeaseError, StorageError

__all__ = [
    "BEAT_SECONDS",
    "Hold",
    "Holder",
    "Lease",
    "lease_path",
    "leases_in",
    "make_room_for_lease",
    "publish_lease",
    "read_lease",
]

BEAT_SECONDS = 10.0
"""How often a holder touches its lease."""

_VERSION = 1
_PREFIX, _SUFFIX = ".ckptfmt.", ".lease"
_NAME_DIGITS = 32
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Holder:
    """A process that saves a run.

    Attributes:
        host: Name of its machine, for people.
        pid: Its number there.
        machine: What all processes on one kernel share, and no others, from one boot to the next.
        process: What tells it from a later process of the same number; empty if the system does not tell.
        since: When it claimed the run, in ISO 8601, UTC.
        job: The job that it belongs to, if a scheduler or launcher named one.
        launcher: Number of the process that started it, if that watches over it.
    """

    host: str
    pid: int
    machine: str
    process: str
    since: str
    job: str | None = None
    launcher: int | None = None

    def __str__(self) -> str:
        job = "" if self.job is None else f" (job {self.job})"
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


@dataclass(frozen=True)
class Lease:
    """What a lease says.

    Attributes:
        run_id: The run.
        generation: How many times it was claimed.
        claim: Tells this claim from every other one.
        holder: Who made it; None once it saves the run no more.
    """

    run_id: str
    generation: int
    claim: str
    holder: Holder | None


class _DamagedLease(Exception):  # noqa: N818 - it never gets out of this module
    """Why a file that has the name of a lease is none.

    Attributes:
        of_a_later_program: It may hold a claim, in a form that this program does not know. Otherwise it holds none:
            leases appear whole.
    """

    def __init__(self, found: str, *, of_a_later_program: bool = False) -> None:
        super().__init__(found)
        self.of_a_later_program = of_a_later_program


def lease_path(directory: str | os.PathLike[str], run_id: str) -> Path:
    """Return the path of the lease of a run: hidden, and such as any file system takes, whatever the run is called."""
    return Path(directory, f"{_PREFIX}{digest(run_id.encode(errors='surrogatepass')).hex()[:_NAME_DIGITS]}{_SUFFIX}")


def leases_in(directory: str | os.PathLike[str]) -> Iterator[Lease]:
    """Yield the leases in a directory that can be understood, in no particular order.

    Raises:
        OSError: It cannot be listed, or one of them not be read.
    """
    for path in Path(directory).iterdir():
        if path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX):
            with contextlib.suppress(_DamagedLease):
                lease = _read(path)
                if lease is not None and lease_path(directory, lease.run_id) == path:
                    yield lease


def read_lease(directory: str | os.PathLike[str], run_id: str) -> Lease | None:
    """Return the lease of a run; None if there is none.

    Raises:
        LeaseError: It cannot be understood.
        StorageError: It cannot be read.
    """
    path = lease_path(directory, run_id)
    try:
        lease = _read(path)
    except _DamagedLease as error:
        raise LeaseError(f"{path}: is not a lease ({error}); remove it if nobody saves the run") from error
    except OSError as error:
        raise storage_error(str(path), "cannot be read to learn who saves the run", error) from error
    if lease is not None and lease.run_id != run_id:
        raise LeaseError(f"{path}: is the lease of another run, {lease.run_id!r}; remove it if nobody saves here")
    return lease


def make_room_for_lease(directory: str | os.PathLike[str], run_id: str) -> bool:
    """Say whether what has the name of the lease of a run holds no claim, so that the run's own process may replace it.

    A directory is removed if it is empty. The directory of the run must be locked.
    """
    path = lease_path(directory, run_id)
    try:
        _read(path)
    except _DamagedLease as error:
        with contextlib.suppress(OSError):  # it is no directory, or not empty: publishing tells
            path.rmdir()
        return not error.of_a_later_program
    except OSError:
        return False
    return False


def publish_lease(directory: str | os.PathLike[str], lease: Lease, *, durably: bool = True) -> Hold:
    """Replace the lease of a run, as a whole or not at all, and hold the new one. The directory must be locked.

    Raises:
        StorageError: It was not replaced, or may not outlast a power cut.
    """
    path = lease_path(directory, lease.run_id)
    temporary = TemporaryFile(path)
    try:
        clean_leftovers(path.parent, path.name)
        descriptor = temporary.create()
        give_to_removers(descriptor, path.parent)
        _write_all(descriptor, _encode(lease))
        if durably:
            flush_file(descriptor)
        # The lock is that of the open file, and stays with the second descriptor. Windows renames no open file.
        hold = Hold(path, OwnDescriptor(os.dup(descriptor)) if file_locks.HAVE_LOCKS else None)
        try:
            temporary.rename()
            if durably:
                temporary.flush_name()
        except BaseException:
            hold.close()
            raise
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(str(path), "the run cannot be claimed", error) from error
    finally:
        temporary.discard()
    return hold


class Hold:
    """A lease that this process holds. As long as it is open, others see that its holder lives.

    Args:
        path: The lease.
        file: The open file, locked; it is closed with this object. None where there are no locks.
    """

    def __init__(self, path: Path, file: OwnDescriptor | None) -> None:
        self._path = path
        self._file = file
        self._ended = threading.Event()
        self._thread: Thread | None = None
        if file is not None:
            weakref.finalize(self, file.close)

    def keep_alive(self, lost: Callable[[], object]) -> None:
        """Touch the lease now and then, until it is closed.

        A call while that goes on does nothing. Where no thread is to be had, each call touches the lease once.

        Args:
            lost: Called once, in a thread, if another lease takes its place. It must not refer to this object.
        """
        if self._ended.is_set() or (self._thread is not None and self._thread.under_way):
            return
        try:
            thread = Thread(_beat, (weakref.ref(self), self._ended, lost), name="ckptfmt-lease", daemon=True)
            thread.start()
            self._thread = thread
        except (RuntimeError, MemoryError):
            self.touch()

    def touch(self) -> bool:
        """Show that its holder lives, as far as the system lets it; say whether it is still the lease of the run."""
        if self._file is None or self._file.number is None or os.utime not in os.supports_fd:
            return True
        try:
            os.utime(self._file.number)
            return leads_to(self._path, self._file.number)
        except OSError:  # nobody knows, for the moment
            return True

    def close(self) -> None:
        """Hold it no more. A second call does nothing."""
        self._ended.set()
        if self._file is not None:
            with contextlib.suppress(OSError):  # nothing is lost with it
                self._file.close()


def _beat(reference: weakref.ref[Hold], ended: threading.Event, lost: Callable[[], object]) -> None:
    while not ended.wait(BEAT_SECONDS):
        hold = reference()
        if hold is None:
            return
        if not hold.touch():
            lost()
            return
        del hold


def _encode(lease: Lease) -> bytes:
    holder = None if lease.holder is None else {k: v for k, v in asdict(lease.holder).items() if v is not None}
    facts = {
        "lease": _VERSION,
        "run_id": lease.run_id,
        "generation": lease.generation,
        "claim": lease.claim,
        "holder": holder,
    }
    return json.dumps(facts, indent=1).encode() + b"\n"


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _read(path: Path) -> Lease | None:
    """Return what a lease says; None if there is none.

    Raises:
        _DamagedLease: It says nothing that this program understands.
        OSError: It cannot be read.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _DamagedLease("it is no regular file")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    try:
        content = os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError):
        raise _DamagedLease("its content is no JSON") from None
    try:
        version = _of(facts, "lease", int)
        if version > _VERSION:
            found = f"its version is {version}, and this program knows version {_VERSION}"
            raise _DamagedLease(found, of_a_later_program=True)
        return _decode(facts)
    except (KeyError, TypeError, ValueError) as error:
        raise _DamagedLease(str(error.args[0])) from error


def _decode(facts: Any) -> Lease:
    if _of(facts, "lease", int) != _VERSION:
        raise ValueError("its version is none")
    if "holder" not in facts:
        raise KeyError("its 'holder' is missing")
    holder = facts["holder"]
    if _of(facts, "generation", int) < 0:
        raise ValueError("the generation is negative")
    return Lease(
        _of(facts, "run_id", str),
        _of(facts, "generation", int),
        _of(facts, "claim", str),
        None if holder is None else _decode_holder(holder),
    )


def _decode_holder(facts: Mapping[str, Any]) -> Holder:
    texts = {name: _of(facts, name, str) for name in ("host", "machine", "process", "since")}
    job = _of(facts, "job", str) if "job" in facts else None
    launcher = _of(facts, "launcher", int) if "launcher" in facts else None
    return Holder(pid=_of(facts, "pid", int), job=job, launcher=launcher, **texts)


def _of(facts: Mapping[str, Any], name: str, kind: type) -> Any:
    value = facts[name] if isinstance(facts, dict) else None
    if type(value) is not kind:
        raise TypeError(f"its {name!r} is missing or of another type")
    return value
