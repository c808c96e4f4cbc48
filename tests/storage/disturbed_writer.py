"""Publish a file again and again, each time disturbed at the next file operation, and tell what became of it.

Usage: disturbed_writer.py kill|interrupt|fail DIRECTORY

Writes a JSON array with one object for each disturbed publication:

    operation  the file operation at which it was disturbed, e.g. `fsync`
    ended      how the writer ended: `killed`, `finished`, or the name of an exception
    content    what then stood at the path: `old`, `new` or `broken`
    others     names of other files in the directory
    next       names of other files in the directory after the next publication, which is not disturbed

Which operations there are is not written down here: the interpreter reports every call of a function that is
written in C, and those that belong to the operating system count.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ckptfmt.storage import AtomicFile

Mode = Literal["kill", "interrupt", "fail"]

OLD, NEW, NEXT = b"old" * 1000, b"new" * 70_000, b"next" * 1000
# Neither touches a file; and what fails to close is closed all the same.
NO_OPERATIONS = {"fspath", "fileno"}
NEVER_FAIL = {"close"}


def publish(path: Path, content: bytes) -> None:
    with AtomicFile(path, expected_bytes=len(content) + 100) as file:
        file.write(content[: len(content) // 2])
        file.write(content[len(content) // 2 :])
        file.commit()


def operation_name(function: Any) -> str | None:
    name: str = function.__name__
    of_system = getattr(function, "__module__", None) in {"posix", "fcntl"}
    of_file = isinstance(getattr(function, "__self__", None), io.FileIO)
    return name if (of_system or of_file) and name not in NO_OPERATIONS else None


class Disturbance:
    """Counts file operations from now on and disturbs the n-th.

    A kill comes before and after each, a failure in place of it, an interrupt after it: there Python looks for
    signals.
    """

    def __init__(self, mode: Mode, when: int, report: int) -> None:
        self.mode = mode
        self.when = when
        self.report = report
        self.count = 0
        sys.addaudithook(self.on_audit)
        sys.setprofile(self.on_call)

    def on_audit(self, event: str, _: tuple[object, ...]) -> None:
        if event == "open":  # files opened by C code are reported as no call
            self.on_operation("open")

    def on_call(self, _: FrameType, event: str, function: Any) -> None:
        events = {"kill": {"c_call", "c_return"}, "interrupt": {"c_return"}, "fail": {"c_call"}}[self.mode]
        if event in events and (name := operation_name(function)) is not None:
            self.on_operation(name)

    def on_operation(self, name: str) -> None:
        if self.mode == "fail" and name in NEVER_FAIL:
            return
        self.count += 1
        if self.count != self.when:
            return
        os.write(self.report, name.encode())
        if self.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(None)
        raise KeyboardInterrupt if self.mode == "interrupt" else OSError(errno.EIO, os.strerror(errno.EIO))


def run_disturbed(mode: Mode, when: int, path: Path) -> tuple[str, str]:
    """Publish in a child process; return the operation that was disturbed, if any, and how it ended."""
    reader, report = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        ended = "finished"
        Disturbance(mode, when, report)
        try:
            publish(path, NEW)
        except BaseException as error:
            ended = type(error).__name__
        sys.setprofile(None)
        os.write(report, f" {ended}".encode())
        os._exit(0)
    os.close(report)
    with os.fdopen(reader) as pipe:
        operation, _, ended = pipe.read().partition(" ")
    os.waitpid(child, 0)
    return operation, ended or "killed"


def others(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if entry != path)


def main(mode: Mode, directory: Path) -> None:
    path = directory / "a.ckptfmt"
    outcomes: list[dict[str, str | list[str]]] = []
    while True:
        path.write_bytes(OLD)
        operation, ended = run_disturbed(mode, len(outcomes) + 1, path)
        if not operation:
            break  # it was not disturbed: there are no more operations
        content = {OLD: "old", NEW: "new"}.get(path.read_bytes(), "broken")
        outcomes.append({"operation": operation, "ended": ended, "content": content, "others": others(path)})
        publish(path, NEXT)
        outcomes[-1]["next"] = others(path)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))  # type: ignore[arg-type]  # any other mode is a KeyError
