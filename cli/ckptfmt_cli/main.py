"""The command `ckptfmt`: its list of commands, and how every way to end becomes an exit code.

Exit codes: 0 yes or done, 1 no (different, damaged, nothing found), 2 usage error, 3 could not answer (no such file,
no permission), 130 interrupted, 141 the reader of our output went away, 143 terminated (SIGTERM).
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from ckptfmt import __version__
from ckptfmt._escaping import escape
from ckptfmt.errors import CkptfmtError
from ckptfmt_cli.messages import error_line

__all__ = ["cli", "main"]

NO, USAGE_ERROR, CANNOT_ANSWER, INTERRUPTED, READER_GONE = 1, 2, 3, 130, 141
_NUMPY_BYTES = 128 << 20
"""Address space that importing NumPy may take."""
_COLLECT_AFTER = 200_000
"""Objects between two collections of garbage. With tables of many rows, the usual 700 cost a third of the time."""
COMPLETE_VARIABLE = "_CKPTFMT_COMPLETE"

# The module of a command is imported when the command runs. Its summary is repeated here so that `--help` imports none.
_COMMANDS = {
    "inspect": "Show what is in a checkpoint.",
    "ls": "List the checkpoints in a directory.",
    "latest": "Print the checkpoint that training would resume from.",
    "diff": "Show what differs between two checkpoints.",
    "verify": "Check every byte of checkpoints.",
    "prune": "Remove checkpoints that no rule keeps.",
    "pin": "Protect checkpoints from being pruned.",
    "unpin": "Allow checkpoints to be pruned again.",
    "doctor": "Check that a training program resumes exactly.",
    "plot": "Plot metrics and layer norms over training.",
    "strip": "Write a copy of a checkpoint without some components.",
    "extract": "Write the members of a checkpoint to a directory.",
    "pack": "Build a checkpoint from the files in a directory.",
    "convert": "Convert a checkpoint from another format, safely.",
    "export": "Export a checkpoint to another format.",
    "completion": "Print a shell completion script.",
}


class _Commands(click.Group):
    """The commands, imported on demand and run with our exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"ckptfmt_cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,  # noqa: ARG002 - click's signature
        standalone_mode: bool = True,  # noqa: ARG002 - click's signature
        **extra: Any,
    ) -> Any:
        """Run and exit, whatever `standalone_mode` says: whoever calls the command gets our exit codes."""
        arguments = list(sys.argv[1:] if args is None else args)
        sys.exit(_run(self, arguments, prog_name or "ckptfmt", extra))


def _run(command: click.Command, args: list[str], prog_name: str, extra: dict[str, Any]) -> int:
    try:
        code = _complete(command, prog_name)
        if code is None:
            code = _invoke(command, args, prog_name, extra)
        sys.stdout.flush()  # a reader that went away shows here rather than when the interpreter ends
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _silence(sys.stdout)
        return READER_GONE
    except CkptfmtError as error:
        return _fail(error_line(error), error.exit_code)
    except OSError as error:  # our own output on a full disk, or a module that cannot be opened
        _silence(sys.stdout)
        return _fail(_plain(error), CANNOT_ANSWER)
    except MemoryError:
        return _fail(_NO_MEMORY, CANNOT_ANSWER)
    except ImportError as error:
        return _fail(f"cannot load a part of the program: {_first_cause(error)}", CANNOT_ANSWER)
    except Exception:  # noqa: BLE001 - a bug; Python would end with 1, which is an answer
        import traceback  # no other way to end needs it

        traceback.print_exc()
        return CANNOT_ANSWER
    return code


def _invoke(command: click.Command, args: list[str], prog_name: str, extra: dict[str, Any]) -> int:
    try:
        with command.make_context(prog_name, args, **extra) as context:
            command.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    return 0


def _complete(command: click.Command, prog_name: str) -> int | None:
    """Answer a request for completions, if the shell made one."""
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if not instruction:
        return None
    from click.shell_completion import shell_complete  # 10 ms that only completion needs

    return shell_complete(command, {}, prog_name, COMPLETE_VARIABLE, instruction)


def _show(error: click.ClickException) -> None:
    """Write what is wrong with a command line, escaped: a script may pass on any name."""
    message = error.format_message()
    if not isinstance(error, click.MissingParameter):  # its lines are all ours
        message = escape(message)
    click.UsageError(message, getattr(error, "ctx", None)).show()


_NO_MEMORY = "not enough memory; free some, or raise the limit of the process (ulimit -v)"


def _plain(error: OSError) -> str:
    """Return what the system reported, without importing anything: perhaps nothing can be imported."""
    place = f"{error.filename}: " if error.filename is not None else ""
    advice = "; raise the limit (ulimit -n)" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
    return f"{place}{error.strerror or error}{advice}"


def _first_cause(error: BaseException) -> str:
    """Return the first cause: libraries wrap it in many lines of advice."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error).partition("\n")[0] or type(error).__name__


class _Room:
    """Finds no module, but refuses to import NumPy if there is too little memory for it.

    NumPy's linear algebra library would end the process with exit code 1, which is one of our answers.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - Python's signature
        """Raise MemoryError if NumPy is about to be imported and there is no room for it."""
        if name == "numpy":
            try:
                mmap.mmap(-1, _NUMPY_BYTES).close()
            except OSError:
                raise MemoryError from None


def _fail(line: str, code: int) -> int:
    sys.stderr.write(f"ckptfmt: {escape(line)}\n")
    return code


def _silence(stream: Any) -> None:
    """Redirect a stream that cannot be written to nowhere, so that the interpreter does not complain when it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, io.UnsupportedOperation):
        return  # not a real stream: nothing is written to it at the end


def _nowhere() -> TextIO:
    """Return a stream to replace one that was closed before we began (`>&-`): the exit code still answers."""
    return Path(os.devnull).open("w", encoding="utf-8")


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 yes or done, 1 no (different, damaged, nothing found), 2 usage error, 3 could not answer.",
)
@click.version_option(__version__, prog_name="ckptfmt", message="%(prog)s %(version)s")
def cli() -> None:
    """Inspect, compare, verify, prune and convert the checkpoints of deep-learning training."""


def _leave(number: int, _: object) -> NoReturn:
    """End on a signal: at once, and with nothing half-written left behind.

    Nothing is unwound: an exception could come up anywhere, even inside a lock of Python's own threads, and leave it
    held forever. What is published is complete at any moment, so only unpublished files have to be removed.
    """
    for module, tidy in (
        ("ckptfmt_cli.progress", "clear"),
        ("ckptfmt._core.storage.local.publication.temporary", "discard_all"),
    ):
        if module in sys.modules:
            getattr(sys.modules[module], tidy)()
    os._exit(128 + number)


def main() -> None:
    """Run the command line and exit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a background job of a script ignores it
            signal.signal(number, _leave)
    gc.set_threshold(_COLLECT_AFTER)
    # Nothing here needs its threads. Each takes 32 MiB at once, and if none can be started, it sends us an interrupt.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    sys.meta_path.insert(0, _Room())
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the locale cannot encode is no reason to fail
    cli.main()
