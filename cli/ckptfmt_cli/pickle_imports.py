"""`ckptfmt inspect --pickle-imports`: what the pickles of a file would import and call."""

from __future__ import annotations

import sys
from collections.abc import Collection

from ckptfmt._core.ops.conversion.pickle_imports import list_pickle_imports
from ckptfmt.errors import ForeignFileError
from ckptfmt_cli.messages import error_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.pickle_imports import pickle_imports_lines

__all__ = ["show_pickle_imports"]


def show_pickle_imports(path: str, *, inert: Collection[str] = (), as_json: bool) -> int:
    """Write the names to standard output and return the exit code: 1 if the file is refused for one of them."""
    try:
        report = list_pickle_imports(path, inert=inert)
    except ForeignFileError as error:
        sys.stderr.write(f"ckptfmt: {error_line(error)}\n")
        return 1
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(pickle_imports_lines(report, Terminal.of(sys.stdout)))
    return 0 if report.safe and report.fault is None else 1
