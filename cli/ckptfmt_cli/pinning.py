"""What `pin` and `unpin` say."""

from __future__ import annotations

from collections.abc import Iterable

from ckptfmt._core.ops.directory.pins import PinChange
from ckptfmt._escaping import escape
from ckptfmt_cli.render import write_json, write_lines

__all__ = ["tell"]


def tell(command: str, changes: Iterable[PinChange], *, as_json: bool) -> None:
    """Write what was done: a line as soon as it is, or all as JSON at the end."""
    done = []
    for change in changes:
        done.append(change)
        if not as_json:
            before = "" if change.changed else " already" if change.pinned else ": had no pin"
            word = "pinned" if change.pinned else "unpinned" if change.changed else ""
            write_lines([f"{escape(change.path)}: {word}{before}" if word else f"{escape(change.path)}{before}"])
    if as_json:
        write_json({"report": f"{command}/1", "files": [change.to_json() for change in done]})
