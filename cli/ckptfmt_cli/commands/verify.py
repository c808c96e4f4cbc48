"""`ckptfmt verify`."""

from __future__ import annotations

import sys
from collections.abc import Container

import click

from ckptfmt._core.ops.directory.verify import (
    FileVerdict,
    Selection,
    Verdict,
    VerifyReport,
    select_files,
    verify_selection,
)
from ckptfmt_cli.options import inert_option
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import say, write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.verify import summary_line, verdict_line

__all__ = ["command"]

_NOT_SOUND = frozenset(Verdict) - {Verdict.SOUND}


@click.command(
    "verify",
    short_help="Check every byte of checkpoints.",
    epilog="""\b
Examples:
  ckptfmt verify last.ckptfmt
  ckptfmt verify runs/*
  ckptfmt verify --quick runs/digits
  ckptfmt verify --json runs/digits | jq '.files[] | .path, .verdict'
""",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option("--quick", is_flag=True, help="Check structure and index only, not the data.")
@click.option("--all", "everything", is_flag=True, help="Also name the files that are sound.")
@inert_option
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON, once all files are checked.")
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    quick: bool,
    everything: bool,
    inert: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check every byte against the digests stored with it, and name the damaged tensors.

    Of several files, those that are not sound are named, and the last line has the sum. For a PATH that is a directory,
    the *.ckptfmt files directly in it are checked. Subdirectories are not searched.

    Files of other formats (.safetensors, .npz, .pth) are read to the end, but have no digests that could prove them
    sound.

    Exit code: 0 all sound, 1 a file is not sound or a directory has no checkpoints, 3 none of that, but a file cannot
    be read or cannot be proved sound.
    """
    selection = select_files(paths)
    named = frozenset(Verdict) if everything or len(selection.files) == 1 else _NOT_SOUND
    verdicts = _verify(selection, quick=quick, inert=inert, named=frozenset() if as_json else named)
    report = VerifyReport(verdicts, selection.empty_directories(verdicts), quick=quick)
    if as_json:
        write_json(report.to_json())
    for directory in report.empty_directories:
        say(f"{directory}: no *.ckptfmt files in this directory")
    if len(report.files) > 1 and not as_json:
        write_lines([summary_line(report)])
    if quick and not as_json:
        say("checked structure and index only; run without --quick to check the data")
    ctx.exit(_exit_code(report))


def _verify(
    selection: Selection, *, quick: bool, inert: tuple[str, ...], named: Container[Verdict]
) -> tuple[FileVerdict, ...]:
    """Check the files; each with a verdict among `named` is written as soon as its verdict is known."""
    terminal = Terminal.of(sys.stdout)
    verdicts = []
    with progress_line() as line:
        for verdict in verify_selection(selection, line.update if line else None, quick=quick, inert=inert):
            verdicts.append(verdict)
            if verdict.verdict in named:
                if line:
                    line.hide()
                write_lines([verdict_line(verdict, terminal)])
                sys.stdout.flush()
    return tuple(verdicts)


def _exit_code(report: VerifyReport) -> int:
    """Return 1 as soon as the answer is no for certain, 3 if it is only unknown."""
    unknown = {Verdict.UNREADABLE, Verdict.READABLE}
    known = [file.verdict for file in report.files if file.verdict not in unknown]
    if report.empty_directories or any(verdict is not Verdict.SOUND for verdict in known):
        return 1
    return 0 if report.sound else 3
