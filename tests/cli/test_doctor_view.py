"""The report of `ckptfmt doctor` as text, beside golden files."""

from __future__ import annotations

from ckptfmt._core.ops.doctor.report import Case, DoctorReport, Finding
from ckptfmt._core.training.rehearsal.journal import Kind
from ckptfmt_cli.terminal import PLAIN
from ckptfmt_cli.text import cells
from ckptfmt_cli.views.doctor import doctor_lines
from tests.cli.conftest import Golden

COMMAND = ("python", "train.py")


def finding(kind: str, name: str, type_name: str = "", step: int = 2, expected: str = "", found: str = "") -> Finding:
    return Finding(Kind(kind), name, type_name, step, expected, found)


def test_a_program_that_forgets_something(golden: Golden) -> None:
    causes = (
        finding("scheduler", "scheduler in main()", "StepLR"),
        finding("generator", "noise in main()", "Generator"),
        finding("variable", "best\x1b[2J in main()", "float", expected="0.31", found="inf"),
    )
    effects = (finding("component", "net", step=3), finding("batch", "of step 4", step=4))
    cases = (
        Case("after step 2, in epoch 0", causes, effects, ("net 0.weight", "net 0.bias")),
        Case("at the end of epoch 0"),
        Case("after step 6, in epoch 1", failure="the command ended with exit code 1\n  Traceback ..."),
    )
    lines = list(doctor_lines(DoctorReport(COMMAND, 12, 2, (), cases), PLAIN))
    golden("doctor.txt", lines)
    assert all(cells(line) <= 80 for line in lines if "uninterrupted run," not in line and "keep" not in line)


def test_a_program_that_differs_by_itself(golden: Golden) -> None:
    noise = (finding("random state", "torch", step=0), finding("component", "net", step=0))
    golden("doctor-noise.txt", doctor_lines(DoctorReport(COMMAND, 3, 0, noise, ()), PLAIN))
