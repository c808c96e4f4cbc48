"""Reports on standard output, as text or JSON; talk on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping

from ckptfmt_cli.terminal import Terminal

__all__ = ["say", "write_json", "write_lines", "write_path"]


def write_lines(lines: Iterable[str]) -> None:
    """Write lines of text to standard output."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def write_json(document: Mapping[str, object]) -> None:
    """Write a JSON document to standard output, in ASCII, so that no name in it can harm a terminal."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def write_path(path: str) -> None:
    """Write a path to standard output for a program to use: its bytes as they are, whatever the locale."""
    sys.stdout.flush()
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None:  # a stream of text alone, as tests use
        sys.stdout.write(f"{path}\n")
        return
    raw.write(os.fsencode(path) + b"\n")
    raw.flush()


def say(text: str) -> None:
    """Write one line of talk to standard error."""
    sys.stdout.flush()
    sys.stderr.write(f"{Terminal.of(sys.stderr).paint(text, 'dim')}\n")
