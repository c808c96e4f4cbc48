"""Notices about a training run: on stderr, and as records of the logger `ckptfmt`.

They are not `warnings`: programs filter those, Python shows each only once, and under `-W error` they raise. A notice
always appears and never raises, so that training continues whatever happens to its output.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence

from ckptfmt._escaping import escape

__all__ = ["LOGGER", "notify", "show", "stderr_descriptor"]

LOGGER = logging.getLogger("ckptfmt")
"""Logger of every notice. Without handlers of the program's own it prints nothing: stderr already has the line."""

LOGGER.addHandler(logging.NullHandler())


def notify(message: str, level: int = logging.WARNING, *, details: Sequence[str] = ()) -> None:
    """Write a message to stderr, prefixed with `ckptfmt:`, and log it. Never raises.

    Message and details may contain names from outside: they are escaped, so they can neither harm a terminal nor forge
    a line.

    Args:
        message: What happened and what to do. It is written as one line.
        level: Level of the log record.
        details: Further lines, such as all but the first of an error's `args`.
    """
    # stderr may be closed, a full disk, or a pipe without a reader; a handler may be arbitrary code.
    with contextlib.suppress(Exception):
        text = "\n  ".join(map(escape, (message, *details)))
        with contextlib.suppress(Exception):
            sys.stderr.write(f"ckptfmt: {text}\n")
            sys.stderr.flush()
        LOGGER.log(level, "%s", text)


def show(text: str) -> None:
    """Write a report of several lines, already escaped, to stderr. Never raises."""
    with contextlib.suppress(Exception):
        sys.stderr.write(text)
        sys.stderr.flush()


def stderr_descriptor() -> int:
    """Return the descriptor of stderr, for writes outside Python; it may be closed. Never raises."""
    try:
        return sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
    except Exception:  # noqa: BLE001 - it may be closed, or an arbitrary object
        return 2
