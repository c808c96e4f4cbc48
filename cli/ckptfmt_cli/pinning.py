"""Output of `pin` and `unpin`."""

from __future__ import annotations

from collections.abc import Iterable

from ckptfmt._core.ops.directory.pins import PinChange
from ckptfmt._escaping import escape
from ckptfmt_cli.render import write_json, write_lines

__all__ = ["change_line", "write_changes"]

_STATES = {
    (True, True): "pinned",
    (True, False): "already pinned",
    (False, True): "unpinned",
    (False, False): "was not pinned",
}


def change_line(change: PinChange) -> str:
    """Return what happened to one file as a line."""
    return f"{escape(change.path)}: {_STATES[change.pinned, change.changed]}"


def write_changes(command: str, changes: Iterable[PinChange], *, as_json: bool) -> None:
    """Write each change as a line as soon as it is made, or all of them as JSON at the end."""
    done = []
    for change in changes:
        done.append(change)
        if not as_json:
            write_lines([change_line(change)])
    if as_json:
        write_json({"report": f"{command}/1", "files": [change.to_json() for change in done]})
