"""Copies from file to file that the system makes by itself: no byte comes to this process, and some are shared.

On file systems that can share blocks between files (Btrfs, XFS), what lies on whole blocks in both is not even written.
"""

from __future__ import annotations

import errno
import os

__all__ = ["copy_range"]

# Not offered by the system or this file system, or not between these two.
_NOT_OFFERED = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}
)
_LARGEST_COPY_BYTES = 1 << 30


def copy_range(source: int, offset: int, target: int, nbytes: int) -> bool:
    """Copy bytes of one file to the beginning of another one, if the system can.

    Args:
        source: The descriptor to read from.
        offset: Where its bytes begin.
        target: The descriptor to write to.
        nbytes: How many there are.

    Returns:
        Whether all of them were copied. If not, the target may hold some of them.

    Raises:
        OSError: They could not be written.
    """
    if not hasattr(os, "copy_file_range"):
        return False
    done = 0
    while done < nbytes:
        try:
            count = os.copy_file_range(source, target, min(_LARGEST_COPY_BYTES, nbytes - done), offset + done, done)
        except OSError as error:
            if error.errno in _NOT_OFFERED:
                return False
            raise
        if not count:
            return False  # of some virtual file systems, or of a file that shrinks: reading it tells
        done += count
    return True
