"""`ckptfmt export`."""

from __future__ import annotations

import sys

import click

from ckptfmt._core.ops.conversion.export import FORMS, export, form_of_target
from ckptfmt_cli.options import inert_option, json_option
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.convert import convert_lines

__all__ = ["command"]


@click.command(
    "export",
    short_help="Export a checkpoint to another format.",
    epilog="""\b
Examples:
  ckptfmt export last.ckptfmt net.safetensors --component net
  ckptfmt export last.ckptfmt last.pth
  ckptfmt export last.ckptfmt hub-model/ --shard-gb 2
""",
)
@click.argument("path", metavar="FILE", type=click.Path())
@click.argument("target", metavar="OUT", type=click.Path())
@click.option("--component", metavar="NAME", help="Component to write; by default the one that holds the weights.")
@click.option("--format", "form", type=click.Choice(FORMS), help="Format, if the extension of OUT does not say.")
@click.option("--shard-gb", metavar="GB", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
              help="Maximum size of a shard, in gigabytes (10^9 bytes).")  # fmt: skip
@click.option("--strict", is_flag=True, help="Refuse objects of unknown classes instead of keeping them as inert data.")
@inert_option
@click.option("--check", is_flag=True, help="Read source and result again and compare every tensor.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    path: str,
    target: str,
    component: str | None,
    form: str | None,
    shard_gb: float,
    strict: bool,
    inert: tuple[str, ...],
    check: bool,
    as_json: bool,
) -> None:
    """Write a checkpoint in another format, chosen by the extension of OUT.

    .pth, .pt and .bin hold all components, for torch.load(weights_only=True). .safetensors and .npz hold the tensors
    of one component. Without an extension, OUT is a directory in the layout of Hugging Face: model.safetensors, or
    shards and their index.

    OUT appears completely or not at all. Every byte of FILE that is used is verified.

    Exit code: 0 written, 1 FILE is damaged or the format cannot hold it, 3 FILE cannot be read or OUT cannot be
    written.
    """
    given = ctx.get_parameter_source("shard_gb") is click.core.ParameterSource.COMMANDLINE
    if given and (form or form_of_target(target)) not in ("hf", "ckptfmt"):
        raise click.UsageError(f"--shard-gb applies only to Hugging Face directories; {target} is not one")
    with progress_line() as line:
        report = export(
            path,
            target,
            form=form,
            component=component,
            shard_bytes=max(1, int(shard_gb * 1e9)),
            strict=strict,
            inert=inert,
            check=check,
            progress=line.update if line else None,
        )
    if as_json:
        write_json(report.to_json())
    else:
        write_lines(convert_lines(report, Terminal.of(sys.stdout)))
