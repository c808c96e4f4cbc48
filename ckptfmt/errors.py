"""Every exception of ckptfmt, and the `Problem` that they carry.

Their texts name files, runs, components and tensors, and whoever writes a file chooses these names. So `str()` of an
error is harmless to a terminal: each of its lines goes through `escape`, a name forges no line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Self

from ckptfmt._escaping import escape

__all__ = [
    "ChangedError",
    "CkptfmtError",
    "ForeignFileError",
    "FormatError",
    "IntegrityError",
    "LimitError",
    "MismatchError",
    "MissingExtraError",
    "NotFoundError",
    "PackError",
    "Problem",
    "ProblemKind",
    "ReadError",
    "StateError",
    "StorageError",
    "TruncatedError",
    "UnsafeInputError",
    "UnsupportedFileError",
    "UnsupportedVersionError",
    "error_for",
]


class ProblemKind(StrEnum):
    """What is wrong with a file, in the five words of the spec's section 18."""

    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    LIMIT = "limit"
    UNSUPPORTED = "unsupported"
    CORRUPT = "corrupt"


_KINDS: dict[ProblemKind, frozenset[str]] = {
    ProblemKind.TRUNCATED: frozenset({"too-short", "trailer-magic", "file-bytes"}),
    ProblemKind.UNSUPPORTED: frozenset(
        {"major-version", "feature-unknown", "codec-unknown", "ext-unknown", "tensor-dtype"}
    ),
    ProblemKind.CORRUPT: frozenset({"index-digest", "padding", "chunk-digest", "stored-digest"}),
    ProblemKind.LIMIT: frozenset(
        {
            "limit-index",
            "limit-members",
            "limit-header",
            "limit-msgpack",
            "limit-depth",
            "limit-values",
            "limit-keys",
        }
    ),
    ProblemKind.MALFORMED: frozenset(
        {
            "magic",
            "index-bounds",
            "preamble-reserved",
            "index-schema",
            "member-name",
            "member-duplicate",
            "component-members",
            "member-offset",
            "member-bytes",
            "digest-count",
            "stored-chunks",
            "zstd-frame",
            "header-json",
            "header-canonical",
            "header-digest",
            "tensor-shape",
            "tensor-offsets",
            "tensor-duplicate",
            "msgpack-invalid",
            "msgpack-canonical",
            "msgpack-key",
            "ext-payload",
            "tree-reference",
            "tree-unreferenced",
            "typed-value",
        }
    ),
}
_KIND_OF = {code: kind for kind, codes in _KINDS.items() for code in codes}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file.

    Attributes:
        code: Stable code of the spec's section 18, such as `chunk-digest`.
        message: One sentence: what was found and what was expected.
        member: Name of the member concerned, if one is.
        tensor: Name of the tensor concerned, if one is.
        offset: Absolute offset in the file in bytes, if one can be named.
    """

    code: str
    message: str
    member: str | None = None
    tensor: str | None = None
    offset: int | None = None
    kind: ProblemKind = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", _KIND_OF[self.code])

    def __str__(self) -> str:
        where = [f"member {self.member!r}"] if self.member is not None else []
        if self.tensor is not None:
            where.append(f"tensor {self.tensor!r}")
        if self.offset is not None:
            where.append(f"offset {self.offset}")
        place = f"{', '.join(where)}: " if where else ""
        return escape(f"{place}{self.message} [{self.code}]")


class CkptfmtError(Exception):
    """Base of every error that ckptfmt raises on purpose. Each argument is one line of its text."""

    def __str__(self) -> str:
        return "\n  ".join(escape(str(line)) for line in self.args)


class FormatError(CkptfmtError, ValueError):
    """A file is not a valid ckptfmt file. `problems` says why, `path` which file."""

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
    """The end of the file is missing: the write was not finished, or the end was lost."""


class LimitError(FormatError):
    """A declared size is beyond a limit of the spec's section 13."""


class UnsupportedVersionError(FormatError):
    """The file needs a newer reader (version, feature, codec, ext type or dtype)."""


class IntegrityError(FormatError):
    """A byte is not what the writer wrote: a digest or a padding byte does not match."""


_CLASSES: dict[ProblemKind, type[FormatError]] = {
    ProblemKind.TRUNCATED: TruncatedError,
    ProblemKind.MALFORMED: FormatError,
    ProblemKind.LIMIT: LimitError,
    ProblemKind.UNSUPPORTED: UnsupportedVersionError,
    ProblemKind.CORRUPT: IntegrityError,
}


def error_for(problems: Problem | Sequence[Problem], path: str | None = None) -> FormatError:
    """Return the error class that fits the first problem, carrying all of them."""
    first = problems if isinstance(problems, Problem) else problems[0]
    return _CLASSES[first.kind](problems, path)


class StateError(CkptfmtError, ValueError):
    """A state holds something that the format cannot express.

    Attributes:
        path: Where it stands, e.g. `optimizer.param_groups[0].foo`.
    """

    def __init__(self, path: str, found: str, advice: str = "") -> None:
        self.path = path
        super().__init__(f"{path}: {found}" + (f"; {advice}" if advice else ""))


class NotFoundError(CkptfmtError, KeyError):
    """A component or tensor of that name is not in the checkpoint."""


class MismatchError(CkptfmtError, ValueError):
    """A checkpoint does not fit the live objects. `differences` lists every reason at once."""

    def __init__(self, what: str, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(f"{what}:", *differences)


class StorageError(CkptfmtError, OSError):
    """Reading or writing failed for a reason outside the file's content: disk full, no permission, gone."""


class ReadError(StorageError):
    """The system could not read bytes of an open file.

    Attributes:
        offset: Offset of the first of them.
        repeated: Whether the device failed to give them several times.
    """

    offset: int
    repeated: bool = False


class ChangedError(StorageError):
    """A file was changed, or another one took its place, while it was read."""


class UnsafeInputError(CkptfmtError, ValueError):
    """An input asks for code to be run. Nothing was run and nothing was written."""


class ForeignFileError(CkptfmtError, ValueError):
    """A file of another format is broken, cut short, something else, or holds what cannot be read safely.

    Attributes:
        detail: What is wrong with it and where, and what to do.
        path: The file, once it is known.
        form: The format that it seems to have, such as `.npz`, once it is known.
    """

    _verdict: ClassVar[str] = "not a valid {form} file"

    def __init__(self, detail: str, path: str | None = None, form: str | None = None) -> None:
        self.detail = detail
        self.path = path
        self.form = form
        verdict = [] if form is None else [self._verdict.format(form=form)]
        super().__init__(": ".join([*([] if path is None else [path]), *verdict, detail]))

    def at(self, path: str, form: str) -> Self:
        """Return the same error with the file and its format named."""
        return type(self)(self.detail, path, form)

    def inside(self, part: str) -> Self:
        """Return the same error with a part of the file, such as a member of its archive, named."""
        return type(self)(f"{part}: {self.detail}", self.path, self.form)


class UnsupportedFileError(ForeignFileError):
    """A file of another format holds what this reader does not take: beyond a limit, or of an unknown kind.

    Its bytes may all be right.
    """

    _verdict = "{form} file that is not supported"


class PackError(CkptfmtError, ValueError):
    """The files of a directory make no checkpoint."""


class MissingExtraError(CkptfmtError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an optional dependency: pip install 'ckptfmt[{extra}]'")
