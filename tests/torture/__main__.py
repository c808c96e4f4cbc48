"""`make torture`: the long form, with its figures as a table."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import warnings
from itertools import count
from pathlib import Path

from tests.torture.campaign import Figures, kill_in_a_save_or_anywhere, tell_to_leave_anywhere, torture
from tests.torture.operations import kill_at

HEAD = """\
| what was done | runs | processes ended | in a save | not resumable | divergent | lost too much | steps done again |
|---|---:|---:|---:|---:|---:|---:|---:|"""


def row(what: str, it: Figures) -> str:
    """Return a line of the table."""
    cells = (it.runs, it.disturbed, it.in_save, it.unresumable, it.divergent, it.lost_too_much, it.lost_steps)
    return f"| {what} | {' | '.join(f'{cell:,}' for cell in cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="runs to be killed; a quarter as many are told to leave")
    runs = parser.parse_args().runs
    warnings.simplefilter("ignore")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torture.campaign", "tests.torture.operations", "torch._dynamo"])
    with tempfile.TemporaryDirectory(prefix="ckptfmt-torture-") as name:
        directory = Path(name)
        killed = torture(context, directory / "kill", runs, kill_in_a_save_or_anywhere)
        print(HEAD, row("SIGKILL at random, mostly in saves", killed), sep="\n", flush=True)
        told = torture(context, directory / "leave", max(1, runs // 4), tell_to_leave_anywhere)
        print(row("SIGTERM at random", told), flush=True)
        each = kill_at(context, directory / "each", count(1))
    print(f"\nSIGKILL at each of the {each.operations} file operations of a run: {len(each.failed)} failed", end="")
    print(f" ({', '.join(map(str, each.failed))})" if each.failed else "")
    return 0 if killed.clean and told.clean and told.lost_steps == 0 and not each.failed else 1


if __name__ == "__main__":
    sys.exit(main())
