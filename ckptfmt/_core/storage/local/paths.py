"""Which paths can be read and published to."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt.errors import StorageError, UsageError

__all__ = [
    "absolute_path",
    "children",
    "fixed_directory",
    "is_directory",
    "is_gone",
    "is_link",
    "leads_out_of",
    "local_path",
    "name_as_text",
    "path_text",
    "real_path",
    "refuse_swapped",
    "require_regular_file",
    "resolve_target",
    "same_file",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C: is a drive
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))


def local_path(path: str | os.PathLike[str]) -> str:
    """Return a path as text.

    Raises:
        UsageError: It is no path.
        StorageError: It is a URL, or no file can have this name.
    """
    text = path_text(path)
    if url := _URL.match(text):
        raise StorageError(
            f"{text}: remote locations and other URLs ({url[0]}) are not supported yet; "
            "give a path in a local or mounted directory"
        )
    try:
        possible = text != "" and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise StorageError(f"{text!r}: no file can have this name; check the path")
    return text


def path_text(path: str | os.PathLike[str]) -> str:
    """Return a path, or a URL, as text.

    Raises:
        UsageError: It is neither.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise UsageError(f"a {type(path).__name__} is not a path; give a str or a Path")
    return os.fsdecode(path)


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return a path that leads to the same place when the working directory has changed.

    Raises:
        UsageError: It is no path.
        StorageError: It is a URL, no file can have this name, or it is relative to a working directory that is gone.
    """
    text = local_path(path)
    try:
        return str(Path(text).absolute())
    except OSError as error:
        raise storage_error(text, "is relative, and the working directory cannot be told", error) from error


def fixed_directory(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a directory, there already or not, without symbolic links.

    What is written there for hours stays together when the working directory changes, or a link is made to lead
    elsewhere. A link that leads nowhere stays in the path: it may lead to a volume that is not mounted.

    Raises:
        UsageError: It is no path.
        StorageError: As for `absolute_path`.
    """
    text = absolute_path(path)
    there = next((place for place in (text, *map(str, Path(text).parents)) if os.path.lexists(place)), text)
    return os.path.realpath(text) if Path(there).exists() else text


def refuse_swapped(source: object, path: object, call: str) -> None:
    """Refuse what is to be saved in the place of the path, and the path in its place.

    Args:
        source: What stands in the place of what is to be saved.
        path: What stands in the place of the path.
        call: The call as it is meant.

    Raises:
        UsageError: They are swapped.
    """
    if isinstance(source, str | os.PathLike) and not isinstance(path, str | bytes | os.PathLike):
        raise UsageError(f"the arguments are swapped; write {call}")


def name_as_text(path: str | os.PathLike[str]) -> str:
    r"""Return the last part of a path as text that can be stored; bytes that are no text become escapes (`\udcff`)."""
    return Path(path).name.encode(errors="backslashreplace").decode()


def is_gone(path: str | os.PathLike[str]) -> bool:
    """Say whether nothing has a name, not even a link that leads nowhere. If that cannot be known: no."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Say whether a path leads to a directory. If that cannot be known: no."""
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except OSError:
        return False


def children(directory: str | os.PathLike[str]) -> list[Path]:
    """Return what is directly in a directory, directories too, by name.

    Raises:
        StorageError: It cannot be listed.
    """
    try:
        return sorted(Path(directory).iterdir())
    except OSError as error:
        raise storage_error(os.fspath(directory), "cannot be listed", error) from error


def nearest_directory(path: Path) -> Path:
    """Return the lowest directory above a path that is there."""
    return next(parent for parent in path.parents if is_directory(parent))


def device_and_inode(path: Path) -> tuple[int, int]:
    """Return the numbers by which the system knows a file or directory.

    Raises:
        StorageError: It cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise storage_error(str(path), "cannot be looked at", error) from error
    return found.st_dev, found.st_ino


def is_link(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is a symbolic link. If that cannot be known: no."""
    return os.path.islink(path)  # noqa: PTH114 - no error of the system comes out of it, as it does out of pathlib's


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of what a path leads to, there already or not."""
    return Path(path).resolve()


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Say whether two paths lead to the same file or directory. If that cannot be known: no."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def leads_out_of(directory: Path, path: Path) -> bool:
    """Say whether a path in a directory leads to something outside of it, by a symbolic link or by its parts."""
    return not path.resolve().is_relative_to(directory.resolve())


def require_regular_file(path: str, mode: int) -> None:
    """Raise `StorageError` unless `mode` (as in `st_mode`) is that of a regular file."""
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise StorageError(f"{path}: is a directory; name a file in it")
    kinds = {stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a symbolic link"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    raise StorageError(f"{path}: is {kind}, not a regular file; name a regular file")


def resolve_target(path: str, *, follow: bool = True) -> Path:
    """Return the absolute path of the file that is to appear when a checkpoint is published at `path`.

    A symbolic link stands for the file that it leads to, there already or not: the link stays and that file
    is replaced, as with any program that writes to the path. The result does not change with the working
    directory.

    Args:
        path: The path.
        follow: False: whatever has the path's name now is of no account, because it will not be replaced.

    Raises:
        StorageError: The path is that of a directory, pipe or device, or its directory does not exist.
        OSError: The operating system refused to look there.
    """
    if path.endswith(_SEPARATORS):
        raise StorageError(f"{path}: is the name of a directory; name a file in it")
    if follow:
        with contextlib.suppress(FileNotFoundError):  # it may be a new file, or a link to one
            require_regular_file(path, Path(path).stat().st_mode)
    target = Path(path).resolve() if follow else Path(path).parent.resolve() / Path(path).name
    try:
        target.parent.stat()
    except FileNotFoundError:
        raise StorageError(f"{path}: the directory {target.parent} does not exist; create it first") from None
    return target
