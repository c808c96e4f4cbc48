"""`make fuzz-readers`: the library's reader beside the minimal reader, on changed files, for as long as you like."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.readers.campaign import run


def main() -> int:
    """Answer the command line."""
    parser = argparse.ArgumentParser(prog="make fuzz-readers", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to look")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="another seed makes other files")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="number of the first file")
    parser.add_argument("--cases", type=int, help="stop after so many files")
    parser.add_argument("--findings", type=Path, default=Path("build/readers"), help="where differing files are kept")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    report = run(arguments.seed, arguments.first, arguments.cases, 60 * arguments.minutes, arguments.findings)
    print(f"{report.cases:,} files, {report.valid:,} of them valid; {len(report.findings)} on which the readers differ")
    for code, count in report.codes.most_common():
        print(f"  {code:20} {count:>12,}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
