"""Renaming a file to a name that is free, so that nothing is ever replaced (spec 15.7).

To look whether a name is free and then to rename leaves a moment in between. There are three ways without one, and
the first that the file system offers is taken:

1. `renameat2` with `RENAME_NOREPLACE`: one step. Local file systems of Linux have it, NFS and Ceph do not. On Windows
   every rename is of this kind.
2. A second name (`link`), then the first one is removed. A kill in between leaves both: the file is published, and
   its temporary name is a leftover like any other.
3. An empty file takes the name (`O_EXCL`), and the rename replaces it. A kill in between leaves the empty file, which
   every reader reports as cut short. For FUSE file systems that know neither of the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

__all__ = ["free_names", "rename_to_free_name"]

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_NOREPLACE = 1  # linux/fs.h; Python's os has no name for it
# EPERM: what seccomp filters say of calls that they do not know. Whoever really may not do it learns so from the next.
_NOT_OFFERED = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EMLINK}
)
_Renameat2 = Callable[[int, bytes, int, bytes, int], int]


class _NotOfferedError(Exception):
    """This way does not exist here."""


def rename_to_free_name(source: Path, target: Path) -> None:
    """Rename a file, and never replace another one.

    Raises:
        FileExistsError: The name is taken.
        OSError: It was not renamed.
    """
    if os.name == "nt":
        source.rename(target)
        return
    for way in (_rename_exclusively, _link, _take_the_name):
        try:
            way(source, target)
        except _NotOfferedError:
            continue
        return


def free_names(target: Path) -> Iterator[Path]:
    """Yield names for a file, the first of which may be free: `NAME.EXT`, then `NAME-2.EXT` and so on.

    Those that are seen to be taken are left out, so that the last one is not looked for among thousands.
    """
    yield target
    numbered = re.compile(re.escape(target.stem) + r"-([0-9]{1,9})" + re.escape(target.suffix))
    try:
        found = [match for path in target.parent.iterdir() if (match := numbered.fullmatch(path.name))]
    except OSError:  # one may create files in a directory and yet not list it
        found = []
    for number in count(max((int(match[1]) for match in found), default=1) + 1):
        yield target.with_name(f"{target.stem}-{number}{target.suffix}")


def _rename_exclusively(source: Path, target: Path) -> None:
    renameat2 = _renameat2()
    if renameat2 is None:
        raise _NotOfferedError
    ctypes.set_errno(0)
    failed = renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    code = ctypes.get_errno()
    if not failed:
        return
    if code in _NOT_OFFERED:
        raise _NotOfferedError
    raise OSError(code, os.strerror(code), str(source), None, str(target))


@functools.cache
def _renameat2() -> _Renameat2 | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or an old C library
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    renameat2: _Renameat2 = function
    return renameat2


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        # When the answer of a file server is lost, the question is asked again: then the name is taken, by us.
        if not _is_same(source, target):
            if error.errno in _NOT_OFFERED:
                raise _NotOfferedError from error
            raise
    with contextlib.suppress(OSError):  # it is published; what is left is a leftover for the next writer
        source.unlink()


def _take_the_name(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        # Somebody may have taken it for a damaged checkpoint, and the name may be another's now.
        if not _is_still(target, descriptor):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            if _is_still(target, descriptor):
                target.unlink()
        raise
    finally:
        os.close(descriptor)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except OSError:
        return False


def _is_still(path: Path, descriptor: int) -> bool:
    """Say whether a path leads to an open file, and that is empty."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return found.st_size == 0 and os.path.samestat(found, os.fstat(descriptor))
