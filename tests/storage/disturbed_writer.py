"""Publish a file again and again, each time disturbed at the next file operation, and tell what became of it.

Usage: disturbed_writer.py kill|interrupt|fail DIRECTORY replace|exclusive|link|take

The last word says how the file gets its name. `replace`: over an old one. The others: under a name that is free, the
first one being taken: by an exclusive rename, by a link where there is no such rename, by an empty file where there
are no links either.

Writes a JSON array with one object for each disturbed publication:

    operation  the file operation at which it was disturbed, e.g. `fsync`
    ended      how the writer ended: `killed`, `finished`, or the name of an exception
    content    what then stood at the path: `old`, `new`, `none`, `empty` or `broken`
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ckptfmt._core.storage.local.publication import renaming
from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile

Mode = Literal["kill", "interrupt", "fail"]
Naming = Literal["replace", "exclusive", "link", "take"]

OLD, NEW, NEXT = b"old" * 1000, b"new" * 70_000, b"next" * 1000
# These touch no file; what fails to close is closed all the same; and what a call has answered is known.
NO_OPERATIONS = {"fspath", "fileno", "getpid", "getppid"}
NEVER_FAIL = {"close", "get_errno"}


def publish(path: Path, content: bytes, *, replace: bool) -> None:
    with AtomicFile(path, expected_bytes=len(content) + 100, replace=replace) as file:
        file.write(content[: len(content) // 2])
        file.write(content[len(content) // 2 :])
        file.commit()


def operation_name(function: Any) -> str | None:
    name: str = function.__name__
    module = getattr(function, "__module__", None)
    of_file = isinstance(getattr(function, "__self__", None), io.FileIO)
    # A call by way of ctypes is not reported; these are, just before and after it.
    around_call = module == "_ctypes" and name in {"set_errno", "get_errno"}
    of_system = module in {"posix", "fcntl"} or around_call
    return name if (of_system or of_file) and name not in NO_OPERATIONS else None


def withhold(naming: Naming) -> None:
    """Let this be a system without some of the ways to rename a file to a free name."""

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if naming in {"link", "take"}:
        renaming._renameat2 = lambda: None  # type: ignore[assignment]  # it is a cache otherwise
    if naming == "take":
        os.link = no_link  # type: ignore[assignment]  # without the names of its parameters


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


def run_disturbed(mode: Mode, when: int, act: Callable[[], object]) -> tuple[str, str]:
    """Do something in a child process; return the operation that was disturbed, if any, and how it ended."""
    reader, report = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        ended = "finished"
        Disturbance(mode, when, report)
        try:
            act()
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


def name_of(content: bytes | None) -> str:
    return {OLD: "old", NEW: "new", None: "none", b"": "empty"}.get(content, "broken")


def main(mode: Mode, directory: Path, naming: Naming) -> None:
    withhold(naming)
    path = directory / "a.ckptfmt"
    appearing = path if naming == "replace" else directory / "a-2.ckptfmt"

    def others() -> list[str]:
        return sorted({entry.name for entry in directory.iterdir()} - {path.name, appearing.name})

    outcomes: list[dict[str, str | list[str]]] = []
    while True:
        path.write_bytes(OLD)
        if appearing != path:
            appearing.unlink(missing_ok=True)
        operation, ended = run_disturbed(
            mode, len(outcomes) + 1, partial(publish, path, NEW, replace=naming == "replace")
        )
        if not operation:
            break  # it was not disturbed: there are no more operations
        content = name_of(appearing.read_bytes() if appearing.exists() else None)
        outcomes.append({"operation": operation, "ended": ended, "content": content, "others": others()})
        assert appearing == path or path.read_bytes() == OLD, "what had the name lost it"
        publish(path, NEXT, replace=True)
        outcomes[-1]["next"] = others()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])  # type: ignore[arg-type]  # another mode is a KeyError
