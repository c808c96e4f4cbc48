"""The vectors notice faults of a reader: a sample always, every fault in the slow part."""

from __future__ import annotations

from random import Random

import pytest

from tests.mutants.hunt import Hunt, alarm, cases, is_about_limits, judge
from tests.mutants.program import Program
from tests.mutants.verdicts import Verdicts, read_equivalents
from tests.spec.vectors import ROOT

SAMPLE = 60
READER = ROOT / "spec" / "minimal_reader.py"


@pytest.fixture(scope="module")
def program() -> Program:
    return Program(READER)


def test_what_is_listed_as_equivalent_is_a_mutant(program: Program) -> None:
    names = [mutant.name for mutant in program.mutants]
    assert len(set(names)) == len(names)
    assert Verdicts(read_equivalents()).without_mutant(set(names)) == []


def test_a_vector_notices_each_of_a_sample(program: Program) -> None:
    """The same sample for the same reader. Mutants that only large vectors notice are left to the slow test."""
    left = {*read_equivalents(), *(mutant.name for mutant in program.mutants if is_about_limits(mutant))}
    mutants = [mutant for mutant in program.mutants if mutant.name not in left and mutant.function != "pack"]
    vectors = cases(program, slow=False)
    with alarm():
        verdicts = [judge(program, mutant, vectors) for mutant in Random(len(mutants)).sample(mutants, SAMPLE)]
    assert [verdict.mutant for verdict in verdicts if verdict.noticed_by is None] == []


@pytest.mark.slow
def test_a_vector_notices_every_fault_that_is_not_listed_as_equivalent() -> None:
    hunt, verdicts = Hunt(), Verdicts(read_equivalents())
    faults = [verdicts.add(verdict) for verdict in hunt.verdicts(hunt.program.mutants, processes=2)]
    assert [fault for fault in faults if fault is not None] == []
    assert verdicts.noticed > 1000
