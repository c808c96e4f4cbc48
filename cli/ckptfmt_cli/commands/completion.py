"""`ckptfmt completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ckptfmt_cli.main import COMPLETE_VARIABLE, cli
from ckptfmt_cli.render import write_lines

__all__ = ["command"]


@click.command(
    "completion",
    short_help="Print a shell completion script.",
    epilog="""\b
Examples:
  eval "$(ckptfmt completion bash)"      # in ~/.bashrc
  ckptfmt completion zsh > "${fpath[1]}/_ckptfmt"
  ckptfmt completion fish > ~/.config/fish/completions/ckptfmt.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that lets a shell complete commands, options and file names."""
    completion = get_completion_class(shell)
    assert completion is not None
    write_lines([completion(cli, {}, "ckptfmt", COMPLETE_VARIABLE).source().rstrip("\n")])
