"""`DoctorReport` as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptfmt._core.ops.doctor.report import Case, DoctorReport, Finding
from ckptfmt._core.training.rehearsal.journal import Kind
from ckptfmt._escaping import escape
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import count

__all__ = ["doctor_lines"]

_MOST = 8
_STATE = (Kind.MODULE, Kind.OPTIMIZER, Kind.SCHEDULER, Kind.STATEFUL, Kind.GENERATOR)
_SEEDS = {
    "python": "random.seed()",
    "numpy": "numpy.random.seed()",
    "torch": "torch.manual_seed()",
}


def doctor_lines(report: DoctorReport, terminal: Terminal) -> Iterator[str]:
    """Yield the lines of a report: the uninterrupted runs, each kill, and what to do."""
    epochs = f" in {count(report.epochs + 1, 'epoch')}" if report.epochs else ""
    agree = terminal.paint("equal", "good") if report.deterministic else terminal.paint("they differ", "warn")
    yield f"2 uninterrupted runs, {count(report.steps, 'step')}{epochs}: {agree}"
    if not report.deterministic:
        yield from _noise_lines(report.noise)
    for case in report.cases:
        word = terminal.paint("exact", "good") if case.exact else terminal.paint("differs", "bad")
        yield f"killed {case.title}, and resumed: {word}"
        yield from _case_lines(case)
    advice = list(dict.fromkeys(_advice(report)))
    if advice:
        yield ""
        yield from (escape(line) for line in advice)


def _noise_lines(noise: Sequence[Finding]) -> Iterator[str]:
    watched = (Kind.COMPONENT, Kind.RANDOM, Kind.BATCH)
    for finding in [finding for finding in noise if finding.kind in watched][:_MOST]:
        yield f"  {_named(finding)}, from step {finding.step} on"


def _case_lines(case: Case) -> Iterator[str]:
    yield from (f"  {escape(line)}" for line in case.failure.splitlines())
    for finding in case.causes[:_MOST]:
        yield f"  not restored: {_named(finding)}{_values(finding)}"
    if len(case.causes) > _MOST:
        yield f"  not restored: {len(case.causes) - _MOST} more"
    for finding in case.effects[:_MOST]:
        yield f"  then differs: {_named(finding)}, from step {finding.step} on"
    if case.tensors:
        more = f" and {len(case.tensors) - 1} more" if len(case.tensors) > 1 else ""
        yield f"  at the end:   {escape(case.tensors[0])}{more}"


def _named(finding: Finding) -> str:
    if finding.kind in _STATE:
        return escape(f"{finding.name} ({finding.type_name})")
    return escape(f"{finding.kind.value} {finding.name}")


def _values(finding: Finding) -> str:
    if not finding.expected or not finding.found:
        return ""
    return escape(f": {finding.expected} in the uninterrupted run, {finding.found} here")


def _advice(report: DoctorReport) -> Iterator[str]:
    """Yield what to do, in the order of the findings."""
    for finding in report.noise:
        if finding.kind is Kind.RANDOM and finding.name in _SEEDS:
            yield f"seed the {finding.name} generator before the components are built: {_SEEDS[finding.name]}"
    for case in report.cases:
        for finding in case.causes:
            name = finding.name.partition(" in ")[0]
            match finding.kind:
                case kind if kind in _STATE:
                    yield f"add {name} to the components of the Checkpointer"
                case Kind.VARIABLE:
                    yield f"carry {name} in ckpt.variables({name}=...), which are saved"
                case Kind.BATCH:
                    yield "the order of the data is not restored: look at the sampler and its generator"
