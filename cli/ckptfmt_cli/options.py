"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Collection

import click

from ckptfmt._core.storage.resolve import is_gone

__all__ = ["inert_option", "json_option", "refuse_others", "require_absent"]

inert_option = click.option(
    "--inert",
    metavar="NAME",
    multiple=True,
    help="Keep NAME (such as a.b.Config) in a .pth file as inert data instead of refusing the file; repeatable.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")


def refuse_others(ctx: click.Context, option: str, allowed: Collection[str]) -> None:
    """Refuse options that `option` would silently ignore.

    Args:
        ctx: The context of the command.
        option: The option, as people type it.
        allowed: Names of the parameters that work together with it.

    Raises:
        UsageError: Another option was given as well.
    """
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if isinstance(parameter, click.Option) and given and option not in parameter.opts and name not in allowed:
            raise click.UsageError(f"{parameter.opts[0]} cannot be combined with {option}; remove one of them")


def require_absent(path: str, *, force: bool) -> None:
    """Refuse to replace a file unless that is asked for.

    Raises:
        UsageError: `path` exists and `force` is not set.
    """
    if not force and not is_gone(path):
        raise click.UsageError(f"{path} already exists; choose another name, or add --force to replace it")
