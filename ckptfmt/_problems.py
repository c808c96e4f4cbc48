"""What can be wrong with a ckptfmt file, in the codes of the spec's section 18."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ckptfmt._escaping import escape

__all__ = ["Problem", "ProblemKind"]


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
