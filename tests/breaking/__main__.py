"""`make break`: faults of every kind, injected on purpose, with the figures as a table."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.breaking.injection import ERRNOS, compiler, run_with_errors
from tests.breaking.loops import LOOPS
from tests.torture.campaign import kill_in_a_save_or_anywhere, torture

HEAD = "| what was done | cases | promises broken |\n|---|---:|---:|"


class Table:
    """Prints a row at a time, and remembers what was broken."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        print(HEAD, flush=True)

    def row(self, what: str, cases: int, broken: list[str]) -> None:
        print(f"| {what} | {cases:,} | {len(broken):,} |", flush=True)
        self.broken += [f"{what}: {line}" for line in broken]


def errors(table: Table, every: int) -> None:
    """Let each file operation fail."""
    for what in ("saves", "resumes"):
        found = run_with_errors("tests.breaking.errors", what, "--every", str(every))
        assert not found["calm"], found["calm"]
        name = (
            f"{', '.join(ERRNOS)} at each of the {found['operations']} file operations of {what}, once or from then on"
        )
        table.row(name, found["cases"], found["broken"])


def crash_states(table: Table) -> None:
    """Cut the power."""
    program = [sys.executable, "-m", "tests.breaking.crash_states"]
    done = subprocess.run(program, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout).values()
    operations = sum(scenario["operations"] for scenario in found)
    broken = [line for scenario in found for line in scenario["broken"]]
    what = f"what a power cut may leave after each of {operations} file operations, by a careless disk"
    table.row(what, sum(scenario["states"] for scenario in found), broken)


def limits(table: Table, rounds: int) -> None:
    """Leave little room for threads, descriptors and memory."""
    command = [sys.executable, "-m", "tests.breaking.limits", "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    for what, cases in found["cases"].items():
        broken = [line for line in found["broken"] if line.startswith(what)]
        table.row(f"runs with room for few {what}" if what != "memory" else "runs with little memory", cases, broken)


def programs(table: Table, kills: int) -> None:
    """Kill two ranks, let file systems fail, and damage files of other formats."""
    for name, what, arguments in (
        ("killed_ranks", "SIGKILL at random in jobs of two ranks", ["--kills", str(kills)]),
        ("file_systems", "file systems that fill up or turn read-only in mid-run", []),
        ("foreign_files", "files of other formats with changed, added or missing bytes", []),
    ):
        command = [sys.executable, "-m", f"tests.breaking.{name}", *arguments]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        if found["cases"]:
            table.row(what, found["cases"], found["broken"])
        else:
            print(f"{what}: left out, as it needs the right to mount", file=sys.stderr)


def loops(table: Table, runs: int) -> None:
    """Kill loops of many shapes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.breaking.loops", "torch._dynamo"])
    random.seed(0)
    killed = 0
    broken = []
    for loop in LOOPS:
        with tempfile.TemporaryDirectory(prefix="ckptfmt-loops-") as name:
            figures = torture(context, Path(name), runs, kill_in_a_save_or_anywhere, loop)
        killed += figures.disturbed
        broken += [] if figures.clean else [f"{loop.__name__}: {figures}"]
    table.row(f"SIGKILL at random in {len(LOOPS)} loops of other shapes, {runs} runs each", killed, broken)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make break", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="let only each so many operations fail")
    parser.add_argument("--rounds", type=int, default=3, help="how often each limit is tried")
    parser.add_argument("--runs", type=int, default=10, help="runs of each loop")
    parser.add_argument("--kills", type=int, default=30, help="kills of jobs of two ranks")
    options = parser.parse_args()
    table = Table()
    if compiler() is None:
        print("errors and power cuts left out: they need Linux and a C compiler", file=sys.stderr)
    else:
        errors(table, options.every)
        crash_states(table)
    limits(table, options.rounds)
    loops(table, options.runs)
    programs(table, options.kills)
    print("", *table.broken, sep="\n")
    return 1 if table.broken else 0


if __name__ == "__main__":
    sys.exit(main())
