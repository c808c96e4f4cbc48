"""Many changed files, one after the other, and what the two readers made of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import count, islice
from pathlib import Path

from tests.readers.compare import difference, of_the_minimal_reader, prepared
from tests.readers.files import Changer, Seed
from tests.spec.vectors import SMALL

MAX_BYTES = 40_000  # of a vector that is changed: small files are fast
BATCH = 200


@dataclass
class Report:
    """What a campaign saw.

    Attributes:
        cases: How many files were read.
        codes: How often the minimal reader named each code.
        valid: How many files were valid.
        findings: Number of each file on which the readers differ, and how.
    """

    cases: int = 0
    valid: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    findings: dict[int, str] = field(default_factory=dict)


@cache
def seeds() -> tuple[Seed, ...]:
    """Return the vectors that are changed."""
    with prepared():
        return tuple(Seed(vector.name, data) for vector in SMALL if len(data := vector.data()) <= MAX_BYTES)


def run(seed: int, first: int, cases: int | None, seconds: float, folder: Path | None = None) -> Report:
    """Read changed files until there have been enough of them, or the time is over.

    Args:
        seed: Chooses the files.
        first: Number of the first one.
        cases: How many to read at most.
        seconds: When to stop, looked at now and then.
        folder: Where files on which the readers differ are written, each with a text that says how.
    """
    changer, report, end = Changer(seeds(), seed), Report(), time.monotonic() + seconds
    with prepared():
        for number in islice(count(first), cases):
            if number % BATCH == 0 and time.monotonic() > end:
                break
            case = changer.case(number)
            answer = of_the_minimal_reader(case.data)
            report.cases += 1
            report.valid += not answer.codes
            report.codes.update(answer.codes)
            found = difference(case, answer)
            if found is None:
                continue
            report.findings[number] = found
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{seed}-{number}.ckptfmt").write_bytes(case.data)
                (folder / f"{seed}-{number}.txt").write_text(f"{found}\n", encoding="utf-8")
                print(f"{seed}-{number}: {found}", flush=True)
    return report
