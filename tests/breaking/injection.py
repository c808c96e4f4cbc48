"""One file operation of a process made to fail, below Python: every call to the C library counts, whoever makes it.

`run_with_errors` starts a module of this package with `shim.c` preloaded; there, `cases` forks a child for each case,
so that PyTorch is imported once, and `Shim` chooses the operation that fails.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ERRNOS", "Ending", "Shim", "cases", "compiler", "run_with_errors"]

HERE = Path(__file__).parent
CASE_SECONDS = 60
AT_ONCE = 8  # most of the time is waiting between tries

ERRNOS = {name: getattr(errno, name) for name in ("EIO", "ESTALE", "EACCES", "ENOSPC", "EMFILE", "ENOMEM")}


def compiler() -> str | None:
    """Return the C compiler; None if there is none, or the system cannot preload."""
    return shutil.which("cc") if sys.platform == "linux" else None


def run_with_errors(module: str, *arguments: str) -> Any:
    """Run a module as a program whose file operations can be made to fail, and return the JSON that it prints."""
    command = compiler()
    assert command is not None, "needs a C compiler"
    with tempfile.TemporaryDirectory(prefix="ckptfmt-shim-") as name:
        shim = Path(name, "shim.so")
        subprocess.run([command, "-shared", "-fPIC", "-O2", "-o", shim, HERE / "shim.c", "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
        program = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(program, env=environment, cwd=HERE.parents[1], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


class Shim:
    """The preloaded library, from within."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.shim_disarm.restype = ctypes.c_long
        self._library.shim_failed.restype = ctypes.c_char_p

    def arm(self, directory: Path, at: int, error: int, *, persistent: bool = False) -> None:
        """Let operation number `at` below a directory fail, and all later ones if `persistent`; 0: only count."""
        self._library.shim_arm(os.fsencode(directory), ctypes.c_long(at), ctypes.c_int(error), int(persistent))

    def disarm(self) -> int:
        """Stop, and return how many operations there were."""
        count: int = self._library.shim_disarm()
        return count

    @property
    def failed(self) -> str:
        """Name of the operation that failed; empty if none did."""
        name: bytes = self._library.shim_failed()
        return name.decode()


@dataclass(frozen=True)
class Ending:
    """How the child of a case ended.

    Attributes:
        case: The case.
        code: Exit code, negative for a signal; None if it hung and was killed.
        said: What the child returned; empty if it came to no end.
        stderr: What it wrote there.
    """

    case: Any
    code: int | None
    said: dict[str, Any]
    stderr: str


def cases(todo: Iterable[Any], child: Callable[[Any], dict[str, Any]], scratch: Path) -> Iterator[Ending]:
    """Fork a child for each case, a few at a time, and yield how each ended, in any order."""
    running: dict[int, tuple[Any, float]] = {}

    def result(pid: int, kind: str) -> Path:
        return scratch / f"child-{pid}.{kind}"

    def finished() -> Iterator[Ending]:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                break
            for hung in [pid for pid, (_, since) in running.items() if time.monotonic() - since > CASE_SECONDS]:
                os.kill(hung, signal.SIGKILL)
            time.sleep(0.002)
        case, since = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        hung = code == -signal.SIGKILL and time.monotonic() - since > CASE_SECONDS
        said = json.loads(result(pid, "json").read_text() or "{}")
        yield Ending(case, None if hung else code, said, result(pid, "stderr").read_text())
        for kind in ("json", "stderr"):
            result(pid, kind).unlink(missing_ok=True)

    for case in todo:
        pid = os.fork()
        if not pid:
            _live(case, child, lambda kind: result(os.getpid(), kind))
        running[pid] = (case, time.monotonic())
        if len(running) >= AT_ONCE:
            yield from finished()
    while running:
        yield from finished()


def _live(case: Any, child: Callable[[Any], dict[str, Any]], result: Callable[[str], Path]) -> None:
    """Be the child of a case; never returns. Ends as a program would: threads are waited for, exit codes kept."""
    os.dup2(os.open(result("stderr"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
    told = result("json").open("w")  # now: the child may give up rights and descriptors
    code = 0
    try:
        json.dump(child(case), told)
        told.flush()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:  # a program ends with every error
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        code = 1
    sys.stderr.flush()
    os._exit(code)
