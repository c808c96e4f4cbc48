"""Is every byte of these files what the writer wrote?"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.format.index import SAFETENSORS
from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.detect import Reader, detect_path
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.ops.progress import Report, Tally
from ckptfmt._core.ops.report_json import problem_json
from ckptfmt._core.runs.scan import EXTENSION, reason
from ckptfmt._core.storage.base import Entry
from ckptfmt._core.storage.resolve import directory_of, is_directory, is_gone, join, look, store_for
from ckptfmt._core.system.workers import CORES, in_order
from ckptfmt.errors import CkptfmtError, FormatError, Problem, ProblemKind, StorageError, UnsupportedFileError

__all__ = [
    "DamagedTensor",
    "FileVerdict",
    "Selection",
    "Verdict",
    "VerifyReport",
    "read_all",
    "select_files",
    "verify_paths",
    "verify_selection",
]


class Verdict(StrEnum):
    """What is known of a file after every byte of it was checked."""

    SOUND = "sound"
    """Every byte is what the writer wrote."""
    DAMAGED = "damaged"
    """It was a valid file, and bytes of it have changed."""
    TRUNCATED = "truncated"
    """Its end is missing."""
    MALFORMED = "malformed"
    """It is not a ckptfmt file, or was made by a faulty writer."""
    UNSUPPORTED = "unsupported"
    """It needs a newer reader."""
    UNREADABLE = "unreadable"
    """It could not be read, so nothing is known."""
    READABLE = "readable"
    """A complete file of another format, without digests that could prove it sound."""


_VERDICT_OF = {
    ProblemKind.CORRUPT: Verdict.DAMAGED,
    ProblemKind.TRUNCATED: Verdict.TRUNCATED,
    ProblemKind.MALFORMED: Verdict.MALFORMED,
    ProblemKind.LIMIT: Verdict.MALFORMED,
    ProblemKind.UNSUPPORTED: Verdict.UNSUPPORTED,
}


@dataclass(frozen=True, order=True)
class DamagedTensor:
    """The name of a tensor that has at least one damaged chunk, and of its component."""

    component: str
    tensor: str


@dataclass(frozen=True)
class FileVerdict:
    """The verdict on one file.

    Attributes:
        path: The file, as it was named or found.
        verdict: The verdict in one word.
        problems: Everything that is wrong with the file, if it could be read.
        error: Why the file could not be read or proved sound; None if it could.
        file_bytes: Length of the file, if known.
        identity: Identity of the file (spec 12.1), if it is sound.
        repeated: Whether it is another name, such as a link, of a file before it; its length counts once.
    """

    path: str
    verdict: Verdict
    problems: tuple[Problem, ...] = ()
    error: str | None = None
    file_bytes: int | None = None
    identity: str | None = None
    repeated: bool = False

    @property
    def damaged_tensors(self) -> tuple[DamagedTensor, ...]:
        """Every tensor with damaged data, once, in the order in which it was found."""
        found = (
            DamagedTensor(problem.member.removesuffix(SAFETENSORS), problem.tensor)
            for problem in self.problems
            if problem.member is not None and problem.tensor is not None and problem.kind is ProblemKind.CORRUPT
        )
        return tuple(dict.fromkeys(found))

    def to_json(self) -> dict[str, object]:
        """Return the verdict in JSON.

        Keys: `path`, `verdict` (a `Verdict`), `file_bytes` and `identity` (or null), `repeated` (whether it is another
        name of a file before it), `damaged_tensors` (array of objects with `component` and `tensor`), `problems` (see
        `problem_json`), `error` (or null).
        """
        return {
            "path": self.path,
            "verdict": self.verdict.value,
            "file_bytes": self.file_bytes,
            "identity": self.identity,
            "repeated": self.repeated,
            "damaged_tensors": [{"component": item.component, "tensor": item.tensor} for item in self.damaged_tensors],
            "problems": [problem_json(problem) for problem in self.problems],
            "error": self.error,
        }


@dataclass(frozen=True)
class VerifyReport:
    """Report of a verification.

    Attributes:
        files: A verdict on each file, in the given order.
        empty_directories: Directories without `*.ckptfmt` files.
        quick: Whether only structure and index were checked.
    """

    files: tuple[FileVerdict, ...]
    empty_directories: tuple[str, ...] = ()
    quick: bool = False

    @property
    def sound(self) -> bool:
        """Whether there was something to check and all of it is sound."""
        found_all = bool(self.files) and not self.empty_directories
        return found_all and all(file.verdict is Verdict.SOUND for file in self.files)

    @property
    def total_bytes(self) -> int:
        """Length of all files together; one that has several names counts once."""
        return sum(file.file_bytes or 0 for file in self.files if not file.repeated)

    def count(self, verdict: Verdict) -> int:
        """Return the number of files with this verdict."""
        return sum(file.verdict is verdict for file in self.files)

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"verify/1"`), `checked` (`"data"`, or `"index"` if only structure and index were read),
        `sound` (boolean), `files` (array, see `FileVerdict.to_json`), `total_bytes` (a file that has several names
        counts once), `empty_directories` (array of strings), `counts` (object: verdict to number of files, all
        verdicts).
        """
        return {
            "report": "verify/1",
            "checked": "index" if self.quick else "data",
            "sound": self.sound,
            "files": [file.to_json() for file in self.files],
            "total_bytes": self.total_bytes,
            "empty_directories": list(self.empty_directories),
            "counts": {verdict.value: self.count(verdict) for verdict in Verdict},
        }


@dataclass(frozen=True)
class Selection:
    """The files to check for a list of paths.

    Attributes:
        files: Each file once, with its length in bytes, or None if even that cannot be read.
        directories: The directories among the paths that can be listed.
        listed: The files that were found in one of these rather than named.
        unreadable: Directories that cannot be listed, and why.
        repeated: The files that are other names of a file before them.
    """

    files: tuple[tuple[str, int | None], ...]
    directories: tuple[str, ...] = ()
    listed: frozenset[str] = frozenset()
    unreadable: tuple[tuple[str, str], ...] = ()
    repeated: frozenset[str] = frozenset()

    def empty_directories(self, verdicts: Iterable[FileVerdict]) -> tuple[str, ...]:
        """Return the directories in which none of the checked files is a checkpoint."""
        found = {directory_of(verdict.path) for verdict in verdicts if verdict.path.endswith(EXTENSION)}
        return tuple(path for path in self.directories if directory_of(join(path, EXTENSION)) not in found)


def select_files(paths: Iterable[str | os.PathLike[str]]) -> Selection:
    """Return the files to check for `paths`.

    A directory is replaced by the `*.ckptfmt` files directly in it, by name. Subdirectories are not searched. Any
    other path is a file to check, whatever its name.
    """
    files: dict[str, Entry | None] = {}
    named: set[str] = set()
    directories: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for path in (os.fspath(path) for path in paths):
        if not is_directory(path):
            files[path] = look(path)
            named.add(path)
            continue
        store = store_for(path)
        try:
            found = sorted(store.list(), key=lambda entry: entry.name)
        except StorageError as error:
            unreadable.append((path, reason(error, path)))
            continue
        directories.append(path)
        files.update((store.path(entry.name), entry) for entry in found if entry.name.endswith(EXTENSION))
    listed = frozenset(files) - named
    sizes = tuple((path, None if entry is None else entry.nbytes) for path, entry in files.items())
    return Selection(sizes, tuple(directories), listed, tuple(unreadable), _repeated(files))


def _repeated(files: Mapping[str, Entry | None]) -> frozenset[str]:
    """Return the paths that are other names of a file before them."""
    seen: set[str] = set()
    repeated = set()
    for path, entry in files.items():
        if entry is None or entry.version is None:
            continue
        if entry.content_id in seen:
            repeated.add(path)
        seen.add(entry.content_id)
    return frozenset(repeated)


def verify_paths(
    paths: Iterable[str | os.PathLike[str]],
    progress: Report | None = None,
    *,
    quick: bool = False,
    inert: Collection[str] = (),
) -> VerifyReport:
    """Check every byte of the files that `select_files` returns for `paths`.

    A file that is damaged or cannot be read is a finding, not an error: nothing is raised for it.

    Args:
        paths: Files and directories.
        progress: Called after each piece of work, by one thread at a time.
        quick: Check structure and index of each file only.
        inert: See `interop.opening.open_tensors`.
    """
    selection = select_files(paths)
    verdicts = tuple(verify_selection(selection, progress, quick=quick, inert=inert))
    return VerifyReport(verdicts, selection.empty_directories(verdicts), quick=quick)


def verify_selection(
    selection: Selection, progress: Report | None = None, *, quick: bool = False, inert: Collection[str] = ()
) -> Iterator[FileVerdict]:
    """Check the files, a few at a time, and yield the verdicts in their order, each as soon as it is known.

    What was found in a directory and is removed before it is checked has no verdict. What has been published there
    meanwhile is checked, too.

    Args:
        selection: The files.
        progress: See `verify_paths`.
        quick: See `verify_paths`.
        inert: See `verify_paths`.
    """
    for path, why in selection.unreadable:
        yield FileVerdict(path, Verdict.UNREADABLE, error=why)
    seen: set[str] = set()
    for _ in range(_LOOKS):
        chosen = [file for file in selection.files if file[0] not in seen]
        seen.update(path for path, _ in chosen)
        gone = False
        for verdict in _verify_files(chosen, selection, progress, quick=quick, inert=inert):
            if verdict is None:
                gone = True
            else:
                yield verdict
        if not gone:
            return
        # Retention removes old checkpoints when there are newer ones, which can be found now.
        selection = select_files(selection.directories)


def _verify_files(
    files: Sequence[tuple[str, int | None]],
    selection: Selection,
    progress: Report | None,
    *,
    quick: bool,
    inert: Collection[str],
) -> Iterator[FileVerdict | None]:
    """Yield the verdicts on files; None for one that was found in a directory and is gone."""
    tally = Tally(sum(size or 0 for _, size in files), progress)

    def check(file: tuple[str, int | None]) -> FileVerdict | None:
        path, size = file
        meter = _Meter(path, size or 0, tally)
        verdict = _verify_file(path, size, meter, quick=quick, inert=inert)
        meter.finish()
        if verdict.verdict is Verdict.UNREADABLE and path in selection.listed and is_gone(path):
            return None
        return replace(verdict, repeated=path in selection.repeated)

    yield from in_order(check, files, min(CORES, _FILES_AT_ONCE), tally.stop)


_LOOKS = 5
_FILES_AT_ONCE = 4  # each is read by several threads already; this is for many small ones


class _Meter:
    """Turns what is done of one file, in logical bytes, into bytes of the file."""

    def __init__(self, path: str, size: int, tally: Tally) -> None:
        self._path = path
        self._size = size
        self._tally = tally
        self._expected = self._checked = self._told = 0

    def expect(self, nbytes: int) -> None:
        """Note how many logical bytes there are to check in the file."""
        self._expected = nbytes

    def advance(self, nbytes: int) -> None:
        """Count logical bytes as checked."""
        self._checked += nbytes
        self._tell(self._size * self._checked // max(self._expected, self._checked, 1))

    def finish(self) -> None:
        """Note that nothing is left to do for the file."""
        self._tell(self._size)

    def _tell(self, done: int) -> None:
        self._tally.add(self._path, done - self._told)
        self._told = done


def _verify_file(path: str, size: int | None, meter: _Meter, *, quick: bool, inert: Collection[str]) -> FileVerdict:
    try:
        if not path.endswith(EXTENSION) and detect_path(path) is not Reader.NATIVE:
            return _read_foreign(path, size, meter, quick=quick, inert=inert)
        with Checkpoint.open(path) as checkpoint:
            meter.expect(sum(member.logical_bytes for member in checkpoint.index.members))
            problems = () if quick else checkpoint.verify(meter.advance)
            identity = checkpoint.identity
    except FormatError as error:
        problems = error.problems
    except StorageError as error:
        return FileVerdict(path, Verdict.UNREADABLE, error=reason(error, path), file_bytes=size)
    if problems:
        return FileVerdict(path, _verdict(problems), problems, file_bytes=size)
    return FileVerdict(path, Verdict.SOUND, file_bytes=size, identity=identity)


def _read_foreign(path: str, size: int | None, meter: _Meter, *, quick: bool, inert: Collection[str]) -> FileVerdict:
    """Read a file of another format to its end: more cannot be known of it."""
    try:
        with open_tensors(path, inert=inert) as file:
            meter.expect(sum(tensor.nbytes for tensor in file.tensors))
            if not quick:
                read_all(file, meter.advance)
            found = f"{file.form} has no digests that could prove it sound"
    except StorageError:
        raise
    except CkptfmtError as error:
        verdict = Verdict.UNREADABLE if isinstance(error, UnsupportedFileError) else Verdict.MALFORMED
        return FileVerdict(path, verdict, error=reason(error, path), file_bytes=size)
    return FileVerdict(path, Verdict.READABLE, error=found, file_bytes=size)


def read_all(file: TensorFile, progress: Callable[[int], None] = lambda _: None) -> None:
    """Read every tensor and every tree of a file, so that all that its format can check is checked.

    Raises:
        CkptfmtError: Something cannot be read.
    """
    for part in file.components.values():
        part.tree()
        for tensor in part.tensors.values():
            for chunk in tensor.chunks():
                progress(len(chunk()))
    file.finish()


def _verdict(problems: tuple[Problem, ...]) -> Verdict:
    """Return the verdict on a file with these problems: damage outweighs what may follow from it."""
    kinds = [problem.kind for problem in problems]
    return Verdict.DAMAGED if ProblemKind.CORRUPT in kinds else _VERDICT_OF[kinds[0]]
