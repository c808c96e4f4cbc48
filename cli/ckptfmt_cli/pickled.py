"""`ckptfmt inspect --globals`: what the pickles of a file would have run."""

from __future__ import annotations

import sys
from collections.abc import Collection

from ckptfmt._core.ops.conversion.pickle_imports import list_globals
from ckptfmt.errors import ForeignFileError
from ckptfmt_cli.messages import error_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.globals import globals_lines

__all__ = ["show_globals"]


def show_globals(path: str, *, inert: Collection[str] = (), as_json: bool) -> int:
    """Write the names to standard output; return the exit code: 1 if one of them is a reason to refuse the file."""
    try:
        report = list_globals(path, inert=inert)
    except ForeignFileError as error:
        sys.stderr.write(f"ckptfmt: {error_line(error)}\n")
        return 1
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(globals_lines(report, Terminal.of(sys.stdout)))
    return 0 if report.safe and report.fault is None else 1
