"""Messages to whoever watches a training run: one line on stderr, and a record of the logger `ckptfmt`.

Not `warnings`: programs filter them, Python shows each only once, and under `-W error` they raise. A notice always
appears and never raises, so that training goes on whatever happens to its output.
"""

from __future__ import annotations

import contextlib
import logging
import sys

__all__ = ["LOGGER", "notify"]

LOGGER = logging.getLogger("ckptfmt")
"""Receives every notice. Without handlers of the program's own it prints nothing: stderr has the line already."""

LOGGER.addHandler(logging.NullHandler())


def notify(message: str, level: int = logging.WARNING) -> None:
    """Write a message to stderr, prefixed with `ckptfmt:`, and log it. Never raises.

    Args:
        message: What happened and what to do about it.
        level: Level of the log record.
    """
    # stderr may be closed, a full disk, or a pipe without a reader; a handler may be anybody's code.
    with contextlib.suppress(Exception):
        sys.stderr.write(f"ckptfmt: {message}\n")
        sys.stderr.flush()
    with contextlib.suppress(Exception):
        LOGGER.log(level, "%s", message)
