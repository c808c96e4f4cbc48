"""Errors as one line: what is wrong, and what to do about it."""

from __future__ import annotations

from ckptfmt._escaping import escape
from ckptfmt.errors import CkptfmtError, FormatError, Problem, ProblemKind
from ckptfmt_cli.text import count

__all__ = ["advice", "error_line"]

_ADVICE = {
    ProblemKind.TRUNCATED: "use another checkpoint; `ckptfmt ls DIR` lists the complete ones",
    ProblemKind.MALFORMED: "use another checkpoint; the program that wrote this one is faulty",
    ProblemKind.LIMIT: "use another checkpoint; the program that wrote this one is faulty",
    ProblemKind.UNSUPPORTED: "upgrade ckptfmt",
    ProblemKind.CORRUPT: "restore the file from a copy, or use another checkpoint",
}


def advice(problem: Problem) -> str:
    """Return what to do about a file with this problem."""
    if problem.code == "magic":
        return "check that this is the right file"
    return _ADVICE[problem.kind]


def error_line(error: CkptfmtError) -> str:
    """Return an error as one line. For a file that is not valid: path, kind, first problem, advice."""
    if not isinstance(error, FormatError):
        return escape(str(error))
    first, *others = error.problems
    more = f" (and {count(len(others), 'more problem')})" if others else ""
    path = f"{error.path}: " if error.path is not None else ""
    return escape(f"{path}{first.kind.value}: {first}{more}; {advice(first)}")
