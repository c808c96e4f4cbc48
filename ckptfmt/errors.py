"""Every exception of ckptfmt, with its exit code.

```
CkptfmtError                               exit code
├── FormatError (ValueError)               1   a .ckptfmt file is not valid; `problems` says why
│   ├── TruncatedError                         its end is missing
│   ├── LimitError                             it declares a size beyond a limit
│   ├── UnsupportedVersionError                it needs a newer reader
│   └── IntegrityError                         a byte has changed
├── ForeignFileError (ValueError)          1   a file of another format is not valid
│   └── UnsupportedFileError                   it is beyond what this reader takes
├── UnsafeInputError (ValueError)          1   an input asks for code to be run
├── NotFoundError (KeyError)               1   no component, tensor or member has that name
├── MismatchError (ValueError)             1   a checkpoint does not fit the live objects
├── StateError (ValueError)                1   a state holds what the format cannot express
├── ExportError (ValueError)               1   a checkpoint cannot be expressed in another format
├── PackError (ValueError)                 1   the files of a directory make no checkpoint
├── UsageError (RuntimeError)              2   wrong arguments, or calls in the wrong order
├── StorageError (OSError)                 3   reading or writing failed
│   ├── ReadError                              the system cannot read some bytes of a file
│   ├── ChangedError                           a file was replaced while it was read
│   ├── LockedError                            another process holds the lock of a directory
│   └── LeaseError                             a file with the name of a lease is none
├── MissingExtraError (ImportError)        3   an optional dependency is not installed
├── RankError (RuntimeError)               3   another rank failed
├── SaveError (RuntimeError)               3   a save failed
├── RestoreError (RuntimeError)            3   a component raised while it was restored
├── ResumeError (RuntimeError)             3   no checkpoint can be resumed
│   └── UndecidedError (SystemExit)        78  a person has to look before the run goes on
│       └── HeldError                          another live process saves the run
└── SupersededError (SystemExit)           73  another process has taken over the run
```

The commands of `ckptfmt` end with the exit code of the error that stops them. In a training, Python ends with 1 after
any uncaught error, except for those that are a SystemExit too: they end the process with their own code, which tells
restarters not to start it again.

Messages name files, runs, components and tensors, and whoever writes a file chooses these names. So `str()` of an
error is harmless to a terminal: each of its lines goes through `escape`, and no name forges a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ckptfmt._escaping import escape
from ckptfmt._problems import Problem, ProblemKind

__all__ = [
    "ChangedError",
    "CkptfmtError",
    "ExportError",
    "ForeignFileError",
    "FormatError",
    "HeldError",
    "IntegrityError",
    "LeaseError",
    "LimitError",
    "LockedError",
    "MismatchError",
    "MissingExtraError",
    "NotFoundError",
    "PackError",
    "Problem",
    "ProblemKind",
    "RankError",
    "ReadError",
    "RestoreError",
    "ResumeError",
    "SaveError",
    "SkippedFile",
    "StateError",
    "StorageError",
    "SupersededError",
    "TruncatedError",
    "UndecidedError",
    "UnsafeInputError",
    "UnsupportedFileError",
    "UnsupportedVersionError",
    "UsageError",
    "error_for",
]


class CkptfmtError(Exception):
    """Base of every error that ckptfmt raises on purpose. Each argument is one line of its message.

    Attributes:
        exit_code: Exit code of a command that this error ends: 1 for an answer ("no"), 2 for a usage error, 3 for no
            answer. For errors that are a SystemExit too, the exit code of the process.
    """

    exit_code: ClassVar[int] = 3

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        return "\n  ".join(escape(str(line)) for line in self.args)


class FormatError(CkptfmtError, ValueError):
    """A `.ckptfmt` file is not valid. `problems` says why, `path` is the file."""

    exit_code = 1

    def __init__(self, problems: Problem | Iterable[Problem], path: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.path = path
        super().__init__(self._text())

    def _text(self) -> str:
        text = "; ".join(str(problem) for problem in self.problems)
        return f"{self.path}: {text}" if self.path is not None else text

    def at(self, path: str) -> FormatError:
        """Return the same error with the file named."""
        return type(self)(self.problems, path)

    @property
    def code(self) -> str:
        """Code of the first problem."""
        return self.problems[0].code


class TruncatedError(FormatError):
    """The end of the file is missing: the write never finished, or the end was lost."""


class LimitError(FormatError):
    """A declared size exceeds a limit (spec 13)."""


class UnsupportedVersionError(FormatError):
    """The file needs a newer reader (version, feature, codec, ext type or dtype)."""


class IntegrityError(FormatError):
    """A byte has changed since it was written: a digest or a padding byte does not match."""


_CLASSES: dict[ProblemKind, type[FormatError]] = {
    ProblemKind.TRUNCATED: TruncatedError,
    ProblemKind.MALFORMED: FormatError,
    ProblemKind.LIMIT: LimitError,
    ProblemKind.UNSUPPORTED: UnsupportedVersionError,
    ProblemKind.CORRUPT: IntegrityError,
}


def error_for(problems: Problem | Sequence[Problem], path: str | None = None) -> FormatError:
    """Return all problems as one error, of the class that fits the first of them."""
    first = problems if isinstance(problems, Problem) else problems[0]
    return _CLASSES[first.kind](problems, path)


class StateError(CkptfmtError, ValueError):
    """A state contains something that the format cannot express.

    Attributes:
        path: Place in the state, such as `optimizer.param_groups[0].foo`.
    """

    exit_code = 1

    def __init__(self, path: str, found: str, advice: str = "") -> None:
        self.path = path
        super().__init__(f"{path}: {found}" + (f"; {advice}" if advice else ""))


class NotFoundError(CkptfmtError, KeyError):
    """The checkpoint has no component, tensor or member with that name."""

    exit_code = 1


class MismatchError(CkptfmtError, ValueError):
    """A checkpoint does not fit the live objects. `differences` lists every reason at once."""

    exit_code = 1

    def __init__(self, what: str, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(f"{what}:", *differences)


class StorageError(CkptfmtError, OSError):
    """Reading or writing failed for a reason outside the content of the file: disk full, no permission, gone."""


class ReadError(StorageError):
    """The system could not read some bytes of an open file.

    Attributes:
        offset: Offset of the first byte.
        repeated: Whether several attempts failed.
    """

    offset: int
    repeated: bool = False


class ChangedError(StorageError):
    """A file was changed or replaced while it was read."""


class LockedError(StorageError):
    """Another process holds the lock of a directory."""


class LeaseError(StorageError):
    """A file with the name of a lease is not a lease."""


class UnsafeInputError(CkptfmtError, ValueError):
    """An input asks for code to be executed. Nothing was executed and nothing was written."""

    exit_code = 1


class ForeignFileError(CkptfmtError, ValueError):
    """A file of another format is damaged, truncated, of an unknown format, or not safe to read.

    Attributes:
        detail: What is wrong with it and where, and what to do.
        path: The file, once it is known.
        form: Its apparent format, such as `.npz`, once it is known.
    """

    exit_code = 1

    _verdict: ClassVar[str] = "not a valid {form} file"

    def __init__(self, detail: str, path: str | None = None, form: str | None = None) -> None:
        self.detail = detail
        self.path = path
        self.form = form
        verdict = [] if form is None else [self._verdict.format(form=form)]
        super().__init__(": ".join([*([] if path is None else [path]), *verdict, detail]))

    def at(self, path: str, form: str | None) -> Self:
        """Return the same error with the file and its format named."""
        return type(self)(self.detail, path, form)

    def inside(self, part: str) -> Self:
        """Return the same error with a part of the file, such as a member of its archive, named."""
        return type(self)(f"{part}: {self.detail}", self.path, self.form)


class UnsupportedFileError(ForeignFileError):
    """A file of another format contains something that is not supported: beyond a limit, or of an unknown kind.

    The file may be sound.
    """

    _verdict = "{form} file that is not supported"


class ExportError(CkptfmtError, ValueError):
    """A checkpoint cannot be expressed in the requested format."""

    exit_code = 1


class PackError(CkptfmtError, ValueError):
    """The files of a directory do not make a checkpoint."""

    exit_code = 1


class MissingExtraError(CkptfmtError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an optional dependency: pip install 'ckptfmt[{extra}]'")


class UsageError(CkptfmtError, RuntimeError):
    """A call has arguments that make no sense, or comes at the wrong time."""

    exit_code = 2


class RankError(CkptfmtError, RuntimeError):
    """Another rank failed in an operation of all ranks. The message contains the rank and its error."""


class SaveError(CkptfmtError, RuntimeError):
    """A save failed (see `__cause__`), or something around it did."""


class RestoreError(CkptfmtError, RuntimeError):
    """A component raised while it was restored, or compared with its state; `__cause__` is what it raised.

    Attributes:
        path: The checkpoint.
        component: Name of the component.
        changed: Names of the components that are no longer as they were, some of them in part.
    """

    def __init__(self, message: str, path: str = "", component: str = "", changed: Sequence[str] = ()) -> None:
        self.path = path
        self.component = component
        self.changed = tuple(changed)
        super().__init__(message)


@dataclass(frozen=True)
class SkippedFile:
    """A checkpoint that could not be used, and the reason. The file was left alone."""

    path: str
    reason: str


class ResumeError(CkptfmtError, RuntimeError):
    """No usable checkpoint to resume from, although there should be one.

    Attributes:
        skipped: Unusable checkpoints with reasons; empty if there are no checkpoints.
    """

    def __init__(self, message: str, skipped: Sequence[SkippedFile] = (), *, details: Sequence[str] = ()) -> None:
        self.skipped = tuple(skipped)
        super().__init__(message, *details, *(f"{file.path}: {file.reason}" for file in self.skipped))


class UndecidedError(ResumeError, SystemExit):
    """A checkpoint that may be the newest is neither known to be sound nor known to be damaged.

    Nothing was changed. If uncaught, the process exits with code 78 (EX_CONFIG of sysexits.h), which tells restarters
    not to try again: a person has to look first.
    """

    exit_code = 78
    code = exit_code  # what Python ends with


class HeldError(UndecidedError):
    """Another live process is saving the run, so this one must not. Nothing was changed.

    Attributes:
        host: Host name of the other process.
        pid: Its process id there.
    """

    def __init__(
        self, message: str, host: str | None = None, pid: int | None = None, *, details: Sequence[str] = ()
    ) -> None:
        super().__init__(message, details=details)
        self.host = host
        self.pid = pid


class SupersededError(CkptfmtError, SystemExit):
    """Another process has taken over the run; this one publishes and removes nothing more.

    If uncaught, the process exits with code 73 (EX_CANTCREAT of sysexits.h), which tells restarters not to try again.
    """

    exit_code = 73
    code = exit_code  # what Python ends with

    def __init__(self, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message, *details)


def _again(kind: type[CkptfmtError], args: tuple[object, ...], attributes: dict[str, object]) -> CkptfmtError:
    """Return an error as it was pickled; its `__init__` takes other arguments than it keeps."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
