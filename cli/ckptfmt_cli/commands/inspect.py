"""`ckptfmt inspect`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ckptfmt._core.interop.base import TensorFile, TensorInfo
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.ops.inspection.component_roles import Role
from ckptfmt._core.ops.inspection.inspect import InspectReport, report_of
from ckptfmt._core.ops.inspection.module_tree import Module, component_trees
from ckptfmt._core.ops.inspection.tensor_filter import TensorOrder, choose_tensors
from ckptfmt._core.system.gc_pause import collector_paused
from ckptfmt_cli.options import inert_option, json_option, refuse_others
from ckptfmt_cli.progress import progress_line
from ckptfmt_cli.render import write_file, write_json, write_lines
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.views.component_names import with_shown_names
from ckptfmt_cli.views.inspect import inspect_lines
from ckptfmt_cli.views.tensors import SHOWN_TENSORS, tensor_lines, tree_lines

if TYPE_CHECKING:
    from ckptfmt._core.ops.inspection.stats import TensorStats

__all__ = ["command"]


@click.command(
    "inspect",
    short_help="Show what is in a checkpoint.",
    epilog="""\b
Examples:
  ckptfmt inspect last.ckptfmt
  ckptfmt inspect --tree last.ckptfmt
  ckptfmt inspect --filter '*.bias' --sort size last.ckptfmt
  ckptfmt inspect --stats --filter 'net.*' last.ckptfmt
  ckptfmt inspect --tensor net.wte.weight last.ckptfmt
  ckptfmt inspect --html report.html last.ckptfmt
  ckptfmt inspect --json last.ckptfmt | jq .metadata.step
""",
)
@click.argument("path", metavar="FILE", type=click.Path())
@click.option("--tree", is_flag=True, help="Group the tensors by module and fold repeated layers.")
@click.option(
    "--filter", "patterns", metavar="GLOB", multiple=True, help="Only tensors whose names match GLOB; repeatable."
)
@click.option("--dtype", "dtypes", metavar="DTYPE", multiple=True, help="Only tensors of this dtype; repeatable.")
@click.option(
    "--sort",
    "order",
    type=click.Choice([order.value for order in TensorOrder]),
    default=TensorOrder.FILE.value,
    show_default=True,
    help="Order of the tensors.",
)
@click.option(
    "--stats/--no-stats",
    default=None,
    help="Read the tensors and show range, mean, deviation, NaN, Inf, zeros, histogram. On by default with --html.",
)
@click.option("--tensor", "values_of", metavar="NAME", help="Show the values of one tensor instead.")
@click.option(
    "--html", "html_path", metavar="OUT", type=click.Path(), help="Write a searchable, sortable HTML page to OUT."
)
@click.option("--all", "all_tensors", is_flag=True, help=f"Show every tensor, not only the first {SHOWN_TENSORS}.")
@click.option("--pickle-imports", is_flag=True, help="List what the pickles in a .pth file would import and call.")
@inert_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    path: str,
    tree: bool,
    patterns: tuple[str, ...],
    dtypes: tuple[str, ...],
    order: str,
    stats: bool | None,
    values_of: str | None,
    html_path: str | None,
    all_tensors: bool,
    pickle_imports: bool,
    inert: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what is in a checkpoint: run, epoch, step, metrics, optimizer, components and tensors.

    Reads only the index and the small trees of FILE, so a file of 100 GB takes no longer than one of 100 KB. The data
    is not checked, except for what --stats and --tensor read; `ckptfmt verify` checks all of it. FILE may also be a
    .pth, .safetensors or .npz file, or a Hugging Face directory. No code in it is run.

    Long names are shortened to fit the terminal, or 80 columns in a pipe. COLUMNS=200 makes room; --json never
    shortens.

    Exit code: 0 shown, 1 FILE is damaged, truncated or not a checkpoint, 3 FILE cannot be read. With --pickle-imports,
    1 also means that an import would be refused.
    """
    ctx.with_resource(collector_paused())  # the command ends with most of what it makes
    if pickle_imports:
        refuse_others(ctx, "--pickle-imports", ("inert", "as_json"))
        from ckptfmt_cli.pickle_imports import show_pickle_imports

        ctx.exit(show_pickle_imports(path, inert=inert, as_json=as_json))
    if values_of is not None:
        refuse_others(ctx, "--tensor", ("inert", "as_json"))
    if html_path is not None:
        refuse_others(ctx, "--html", ("patterns", "dtypes", "order", "stats", "inert"))
    with open_tensors(path, inert=inert) as file:
        if values_of is not None:
            _show_values(file, values_of, as_json=as_json)
            return
        report = report_of(file, path)
        tensors = choose_tensors(report.tensors, patterns=patterns, dtypes=dtypes, order=TensorOrder(order))
        numbers = _statistics(file, tensors) if stats or (stats is None and html_path is not None) else None
    if html_path is not None:
        _write_page(html_path, with_shown_names(replace(report, tensors=tensors)), numbers)
        return
    if as_json:
        trees = component_trees(report.components, tensors) if tree else []
        document = report.to_json()
        document["tensors"] = [tensor.to_json() for tensor in tensors]
        extras = {"tree": trees if tree else None, "stats": numbers}
        document |= {name: [item.to_json() for item in items] for name, items in extras.items() if items is not None}
        write_json(document)
        return
    terminal = Terminal.of(sys.stdout)
    if numbers is not None:
        lines = _stats_lines(numbers, terminal)
    elif tree:
        lines = _tree_lines(with_shown_names(replace(report, tensors=tensors)), terminal, all_tensors=all_tensors)
    else:
        lines = tensor_lines(tensors, terminal, all_tensors=all_tensors) if tensors else []
    if len(tensors) < len(report.tensors):
        lines.append(terminal.paint(f"{len(tensors):,} of {len(report.tensors):,} tensors match", "dim"))
    write_lines(inspect_lines(with_shown_names(report), terminal, datetime.now(UTC), lines))


def _statistics(file: TensorFile, tensors: Sequence[TensorInfo]) -> Sequence[TensorStats]:
    from ckptfmt._core.ops.inspection.stats import tensor_stats  # NumPy, which the rest does without

    with progress_line() as line:
        return tensor_stats(file, tensors, line.update if line else None)


def _stats_lines(stats: Sequence[TensorStats], terminal: Terminal) -> list[str]:
    from ckptfmt_cli.views.stats import stats_lines

    return stats_lines(stats, terminal)


def _write_page(path: str, report: InspectReport, stats: Sequence[TensorStats] | None) -> None:
    from ckptfmt_cli.pages.inspect import inspect_page

    write_file(path, inspect_page(report, stats, datetime.now(UTC)))


def _show_values(file: TensorFile, name: str, *, as_json: bool) -> None:
    from ckptfmt._core.ops.inspection.tensor_preview import find_tensor, view_tensor
    from ckptfmt_cli.views.stats import value_lines

    view = view_tensor(file, find_tensor(file.tensors, name))
    if as_json:
        write_json({"report": "tensor/1", "path": file.path, **view.to_json()})
    else:
        write_lines(value_lines(view, Terminal.of(sys.stdout)))


def _tree_lines(report: InspectReport, terminal: Terminal, *, all_tensors: bool) -> list[str]:
    trees = component_trees(report.components, report.tensors)
    return tree_lines(trees if all_tensors else [_folded(item, report) for item in trees], terminal)


def _folded(tree: Module, report: InspectReport) -> Module:
    """Return a tree whole if it is one of weights, else its first line."""
    weights = any(item.name == tree.name and item.role is Role.WEIGHTS for item in report.components)
    return tree if weights else replace(tree, children=())
