"""The option `--inert` of the commands that read files of PyTorch."""

from __future__ import annotations

import click

__all__ = ["inert_option"]

inert_option = click.option(
    "--inert",
    metavar="NAME",
    multiple=True,
    help="Do not refuse a .pth file for NAME, such as a.b.Config: keep it as data, nothing is run; repeatable.",
)
