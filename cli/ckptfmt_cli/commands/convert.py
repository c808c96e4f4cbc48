"""`ckptfmt convert`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ckptfmt._core.format.index import CODECS
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.conversion.convert_tree import Failure, convert_tree, plan_tree
from ckptfmt._core.ops.conversion.export import export, form_of_target
from ckptfmt._core.ops.conversion.report import ConvertReport
from ckptfmt._core.ops.progress import Report
from ckptfmt._core.runs.scan import EXTENSION
from ckptfmt.errors import CkptfmtError, StorageError
from ckptfmt_cli.options import inert_option, json_option
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import say, write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.convert import convert_lines, converted_line, failed_line, tree_summary

__all__ = ["command"]


@click.command(
    "convert",
    short_help="Convert a checkpoint from another format, safely.",
    epilog="""\b
Examples:
  ckptfmt convert ckpt_best_12.pth best.ckptfmt
  ckptfmt convert --strict --check model.pth model.ckptfmt
  ckptfmt convert runs/gpt/checkpoint-500 step-500.ckptfmt
  ckptfmt convert --recursive old/ new/
  ckptfmt convert last.ckptfmt last.pth
""",
)
@click.argument("source", metavar="SRC", type=click.Path())
@click.argument("target", metavar="DST", type=click.Path())
@click.option("--strict", is_flag=True, help="Refuse objects of unknown classes instead of keeping them as inert data.")
@inert_option
@click.option("--check", is_flag=True, help="Read source and result again and compare every value.")
@click.option("--recursive", is_flag=True, help="SRC is a directory: convert every checkpoint in it to DST.")
@click.option("--codec", type=click.Choice(CODECS), default="none", show_default=True, help="Codec of all components.")
@click.option("--run-id", metavar="ID", help="Run that DST will belong to, so that training can resume from it.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    source: str,
    target: str,
    strict: bool,
    inert: tuple[str, ...],
    check: bool,
    recursive: bool,
    codec: str,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Convert a checkpoint from another format to the native format, without running any code in it.

    SRC is a file written by torch.save (any version), a TorchScript archive, a pickle, a .safetensors or .npz file, or
    a directory: a Hugging Face model or Trainer checkpoint, or one written by Accelerate's save_state. Pickles are
    read as data. SRC is refused if it names anything in Python, PyTorch or NumPy that checkpoints have no use for.
    Objects of other classes become inert data and are listed.

    If DST ends in .pth, .pt, .bin, .safetensors or .npz, it is written in that format (see `ckptfmt export`). If DST
    is a directory, the file in it is named after SRC. DST appears completely or not at all.

    Exit code: 0 converted, 1 SRC is refused, damaged or holds something that cannot be expressed, 3 SRC cannot be read
    or DST cannot be written.
    """
    how = _How(strict, inert, check, codec, run_id)
    if recursive:
        ctx.exit(_convert_all(source, target, how, as_json=as_json))
    report = _convert(source, _file_in(source, target), how)
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(convert_lines(report, Terminal.of(sys.stdout)))


@dataclass(frozen=True)
class _How:
    strict: bool
    inert: tuple[str, ...]
    check: bool
    codec: str
    run_id: str | None

    def options(self, progress: Report | None) -> dict[str, Any]:
        return {**asdict(self), "progress": progress}


def _convert(source: str, target: str, how: _How) -> ConvertReport:
    with progress_line() as line:
        progress = line.update if line else None
        if form_of_target(target) == "ckptfmt":
            return convert(source, target, **how.options(progress))
        if how.run_id or how.codec != "none":
            raise click.UsageError(f"--codec and --run-id apply only to .ckptfmt targets; {target} is not one")
        return export(source, target, strict=how.strict, inert=how.inert, check=how.check, progress=progress)


def _file_in(source: str, target: str) -> str:
    """Return the target; in a directory, the file of the source's name."""
    if not Path(target).is_dir():
        return target
    path = Path(source).resolve()
    return str(Path(target) / ((path.name if path.is_dir() else path.stem) + EXTENSION))


def _convert_all(source: str, target: str, how: _How, *, as_json: bool) -> int:
    if not Path(source).is_dir():
        raise click.UsageError(f"{source} is not a directory; --recursive needs one")
    pairs = plan_tree(source, target)
    if not pairs:
        say(f"{source}: no checkpoints to convert")
        return 1
    terminal = Terminal.of(sys.stdout)
    with progress_line() as line:

        def show(outcome: ConvertReport | Failure) -> None:
            if line:
                line.hide()
            if not as_json:
                failed = isinstance(outcome, Failure)
                write_lines([failed_line(outcome, terminal) if failed else converted_line(outcome, terminal)])  # type: ignore[arg-type]  # one of the two
                sys.stdout.flush()

        report = convert_tree(pairs, **how.options(line.update if line else None), done=show)
    if as_json:
        write_json(report.to_json())
    say(tree_summary(report))
    return _code(tuple(failure.error for failure in report.failed))


def _code(errors: tuple[CkptfmtError, ...]) -> int:
    """Return 0 if all went well, 3 if nothing worse happened than that files could not be read, else 1."""
    if not errors:
        return 0
    return 3 if all(isinstance(error, StorageError) for error in errors) else 1
