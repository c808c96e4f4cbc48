"""Which permissions new files and directories get: those that are published, and those that are for writers alone.

Whoever can open a file can lock it, for reading is enough. So a temporary file or a file of a lock that everybody can
read could be locked by anybody: no prune would ever begin, no leftover ever be cleaned, and what is dead would look
alive. Therefore:

- A *lock* is for those who may remove files from its directory: the owner, the directory's group if that may write to
  the directory, and everybody if everybody may (unless it is sticky, so that each may remove only what is theirs).
- A *temporary* file or directory is for the same people, as far as they will be able to write to it once it is
  published: in a shared directory of a group whose umask is 002, each cleans up after the others; with the umask 022,
  everybody after themselves.

It gets the permissions that are usual in its directory just before it is published.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
import threading
from pathlib import Path

__all__ = ["give_to_removers", "lock_mode", "set_mode", "temporary_mode", "usual_mode"]

_FILE, _DIRECTORY = 0o666, 0o777
_OWNER, _GROUP, _OTHERS = 0o700, 0o070, 0o007

# Of the access list that a directory gives to what is made in it (linux/posix_acl_xattr.h).
_DEFAULT_ACL = "system.posix_acl_default"
_ACL_HEADER, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_ACL_OWNER, _ACL_GROUP, _ACL_MASK, _ACL_OTHERS = 0x01, 0x04, 0x10, 0x20

_UMASK = re.compile(rb"^Umask:\s*([0-7]+)$", re.MULTILINE)
_umask_lock = threading.Lock()
# Of file systems that have no permissions of their own, or give the same to everything.
_NOT_OFFERED = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


def usual_mode(directory: Path, *, of_directory: bool = False) -> int:
    """Return the permissions that whatever a program makes in a directory has there: by access list, or by umask."""
    asked = _DIRECTORY if of_directory else _FILE
    given = _default_acl_mode(directory)
    return asked & ~_umask() if given is None else asked & given


def temporary_mode(directory: Path, *, of_directory: bool = False) -> int:
    """Return the permissions of a file or directory that is not published yet: they are for those who may clean up."""
    asked = _DIRECTORY if of_directory else _FILE
    usual = usual_mode(directory, of_directory=of_directory)
    return asked & (_OWNER | sum(who for who in _removers(directory) if usual & who & 0o222))


def lock_mode(directory: Path) -> int:
    """Return the permissions of the file on which the lock of a directory is held."""
    return _FILE & (_OWNER | sum(_removers(directory)))


def set_mode(descriptor: int, mode: int) -> None:
    """Give an open file or directory these permissions, where it has any.

    Raises:
        OSError: They could not be changed.
    """
    if not hasattr(os, "fchmod"):  # Windows
        return
    before = stat.S_IMODE(os.fstat(descriptor).st_mode)
    wanted = (before & ~0o777) | mode  # the rest comes from the directory around it
    if wanted == before:
        return
    try:
        os.fchmod(descriptor, wanted)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise


def give_to_removers(descriptor: int, directory: Path) -> None:
    """Give an open file, if it is ours, the permissions of the file of a lock.

    Raises:
        OSError: They could not be changed.
    """
    found, around, mode = os.fstat(descriptor), directory.stat(), lock_mode(directory)
    if not hasattr(os, "geteuid") or found.st_uid != os.geteuid():
        return
    if mode & stat.S_IRWXG and found.st_gid != around.st_gid:
        with contextlib.suppress(OSError):  # whoever is not of the group cannot give it to the group
            os.fchown(descriptor, -1, around.st_gid)
    set_mode(descriptor, mode)


def _removers(directory: Path) -> list[int]:
    """Return who may remove the files of others from a directory, besides their owner."""
    mode = directory.stat().st_mode
    group = [_GROUP] if mode & stat.S_IWGRP else []
    return [*group, _OTHERS] if mode & stat.S_IWOTH and not mode & stat.S_ISVTX else group


def _default_acl_mode(directory: Path) -> int | None:
    """Return what the access list of a directory gives to what is made in it; None if it has none, as usual."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        value = os.getxattr(directory, _DEFAULT_ACL)
    except OSError:
        return None
    entries: dict[int, int] = {}
    with contextlib.suppress(struct.error):
        for tag, rights, _ in _ACL_ENTRY.iter_unpack(value[_ACL_HEADER.size :]):
            entries[tag] = rights & 7
    group = entries.get(_ACL_MASK, entries.get(_ACL_GROUP))
    owner, others = entries.get(_ACL_OWNER), entries.get(_ACL_OTHERS)
    if owner is None or group is None or others is None:
        return None
    return owner << 6 | group << 3 | others


def _umask() -> int:
    with contextlib.suppress(OSError):
        found = _UMASK.search(Path("/proc/self/status").read_bytes())
        if found:
            return int(found[1], 8)
    with _umask_lock:  # it can only be read by setting it: what another thread makes meanwhile is for its owner alone
        mask = os.umask(0o077)
        os.umask(mask)
    return mask
