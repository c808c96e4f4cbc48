"""Reports on standard output, as text or JSON; messages on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping

from ckptfmt._escaping import escape
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import size

__all__ = ["say", "write_file", "write_json", "write_lines", "write_path"]


def write_lines(lines: Iterable[str]) -> None:
    """Write lines of text to standard output."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def write_json(document: Mapping[str, object]) -> None:
    """Write a JSON document to standard output, in ASCII, so that no name in it can harm a terminal."""
    text = json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False)
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")  # the only control character that JSON does not escape


def write_path(path: str) -> None:
    """Write a path to standard output for other programs: its exact bytes, whatever the locale.

    On a terminal it is escaped like any other name.
    """
    if sys.stdout.isatty():
        write_lines([escape(path)])
        return
    sys.stdout.flush()
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None:  # a text-only stream, as in tests
        sys.stdout.write(f"{path}\n")
        return
    raw.write(os.fsencode(path) + b"\n")
    raw.flush()


def write_file(path: str, text: str) -> None:
    """Write a text to a file, which appears completely or not at all, and report its size.

    Raises:
        StorageError: The file cannot be written.
    """
    from ckptfmt._core.storage import create  # most commands write no file

    with create(path) as file:
        file.write(text.encode())
        file.commit()
    write_lines([f"{escape(path)}: {size(len(text.encode()))}"])


def say(text: str) -> None:
    """Write a one-line message to standard error, escaped."""
    sys.stdout.flush()
    sys.stderr.write(f"{Terminal.of(sys.stderr).paint(escape(text), 'dim')}\n")
