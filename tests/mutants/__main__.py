"""`make mutants`: the minimal reader with each fault of `operators`, one by one, and the vector that notices it."""

from __future__ import annotations

import argparse
import sys
import time

from ckptfmt._core.system.workers import CORES
from tests.mutants.hunt import Hunt
from tests.mutants.verdicts import Verdicts, read_equivalents


def main() -> int:
    """Answer the command line."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--processes", type=int, default=CORES)
    parser.add_argument("functions", nargs="*", help="mutate these functions of the reader only")
    arguments = parser.parse_args()
    start = time.monotonic()
    hunt = Hunt()
    chosen = [
        mutant
        for mutant in hunt.program.mutants
        if not arguments.functions or mutant.function.startswith(tuple(arguments.functions))
    ]
    print(f"{len(chosen):,} mutants, {len(hunt.cases):,} vectors", flush=True)
    verdicts = Verdicts(read_equivalents())
    for number, verdict in enumerate(hunt.verdicts(chosen, arguments.processes), start=1):
        fault = verdicts.add(verdict)
        if fault:
            print(fault, flush=True)
        if number % 500 == 0:
            print(f"{number:,} done, {time.monotonic() - start:.0f} s", flush=True)
    for name in verdicts.without_mutant({mutant.name for mutant in hunt.program.mutants}):
        print(f"listed, but there is no such mutant: {name}")
    print(f"{verdicts.noticed:,} noticed, {verdicts.equivalent:,} equivalent, {verdicts.faults:,} faults", end="")
    print(f" in {time.monotonic() - start:.0f} s")
    return 1 if verdicts.faults else 0


if __name__ == "__main__":
    sys.exit(main())
