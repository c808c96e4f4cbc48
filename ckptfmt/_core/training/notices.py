"""Messages to whoever watches a training run: on stderr, and as a record of the logger `ckptfmt`.

Not `warnings`: programs filter them, Python shows each only once, and under `-W error` they raise. A notice always
appears and never raises, so that training goes on whatever happens to its output.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence

from ckptfmt._escaping import escape

__all__ = ["LOGGER", "notify", "show", "stderr_descriptor"]

LOGGER = logging.getLogger("ckptfmt")
"""Receives every notice. Without handlers of the program's own it prints nothing: stderr has the line already."""

LOGGER.addHandler(logging.NullHandler())


def notify(message: str, level: int = logging.WARNING, *, details: Sequence[str] = ()) -> None:
    """Write a message to stderr, prefixed with `ckptfmt:`, and log it. Never raises.

    Message and details may hold names that others chose: neither can harm a terminal or forge a line.

    Args:
        message: What happened and what to do about it. It becomes one line.
        level: Level of the log record.
        details: Further lines, such as all but the first of an error's `args`.
    """
    # stderr may be closed, a full disk, or a pipe without a reader; a handler may be anybody's code.
    with contextlib.suppress(Exception):
        text = "\n  ".join(map(escape, (message, *details)))
        with contextlib.suppress(Exception):
            sys.stderr.write(f"ckptfmt: {text}\n")
            sys.stderr.flush()
        LOGGER.log(level, "%s", text)


def show(text: str) -> None:
    """Write a report of several lines, escaped already, to stderr. Never raises."""
    with contextlib.suppress(Exception):
        sys.stderr.write(text)
        sys.stderr.flush()


def stderr_descriptor() -> int:
    """Return the descriptor behind stderr, for what writes past Python; it need not be open. Never raises."""
    try:
        return sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
    except Exception:  # noqa: BLE001 - it may be closed, or anybody's object
        return 2
