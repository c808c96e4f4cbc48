"""Diagnosis of a training program: two uninterrupted runs, then kills at telling places, each resumed and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt._core.ops.directory.latest import find_latest
from ckptfmt._core.ops.doctor.judging import causes_of, effects_of, first_differences, is_unused_generator, telling
from ckptfmt._core.ops.doctor.processes import rehearse
from ckptfmt._core.ops.doctor.report import Case, DoctorReport, Finding
from ckptfmt._core.training.rehearsal.journal import Entry, Kind, Moment
from ckptfmt._core.training.rehearsal.plan import RehearsalPlan
from ckptfmt.errors import CkptfmtError, UsageError

__all__ = ["Options", "diagnose"]

_OF_THE_RUN = ("rng", "progress")
"""Components that the Checkpointer adds: the journals compare what they stand for."""


@dataclass(frozen=True)
class Options:
    """How far to rehearse.

    Attributes:
        steps: Steps of the uninterrupted run.
        epoch_batches: Batches of each epoch.
        timeout_seconds: Limit for each run of the command.
    """

    steps: int = 12
    epoch_batches: int = 4
    timeout_seconds: float = 600.0


@dataclass(frozen=True)
class _Kill:
    title: str
    step: int | None = None
    epoch: int | None = None


def diagnose(
    command: Sequence[str], workplace: Path, options: Options, progress: Callable[[str], None] | None = None
) -> DoctorReport:
    """Run a training program without interruption twice, then killed and resumed, and compare.

    If random states or batches differ between the first two runs, there are no kills: the program has to be seeded.

    The checkpoints of the program go to a scratch directory; everything else that it writes goes where it always does.

    Args:
        command: The command and its arguments.
        workplace: Existing empty directory for scratch files.
        options: How far to rehearse.
        progress: Called with what is being done.

    Raises:
        UsageError: The command is empty or cannot be started, or an option makes no sense.
        CkptfmtError: The command fails, takes too long, or trains nothing.
    """
    if not command:
        raise UsageError("no command; put it behind `--`: ckptfmt doctor -- python train.py")
    if options.steps < 3 or options.epoch_batches < 2:
        raise UsageError("a rehearsal takes at least 3 steps and 2 batches of each epoch")
    say = progress or (lambda _: None)
    made = _Rehearsals(tuple(command), workplace, options)
    say("first uninterrupted run")
    whole = made.run("uninterrupted")
    say("second uninterrupted run")
    noise = first_differences(whole, made.run("again"))
    telling_noise = tuple(finding for finding in noise if not is_unused_generator(finding, whole))
    cases = []
    # Without seeds, anything may differ by chance. Where only results differ, as with some kernels, the rest is judged.
    unseeded = any(finding.kind in (Kind.RANDOM, Kind.BATCH) for finding in telling_noise)
    for number, kill in enumerate(() if unseeded else _kills(whole)):
        say(f"killed {kill.title}")
        cases.append(made.case(f"kill-{number}", kill, whole, noise))
    last = whole[-1]
    return DoctorReport(tuple(command), last.step, last.epoch, telling_noise, tuple(cases))


class _Rehearsals:
    def __init__(self, command: tuple[str, ...], workplace: Path, options: Options) -> None:
        self._command = command
        self._workplace = workplace
        self._options = options

    def run(self, name: str, kill: _Kill | None = None, resumes: str | None = None) -> tuple[Entry, ...]:
        """Run the command once.

        Args:
            name: Name of the run, which is that of its directory.
            kill: Where it dies; None: it trains to the end.
            resumes: Name of the run whose checkpoints it resumes from; None: it starts anew.
        """
        place = self._workplace / name
        place.mkdir()
        plan = RehearsalPlan(
            str(self.checkpoints(resumes or name)),
            str(place / "journal.jsonl"),
            self._options.steps,
            self._options.epoch_batches,
            kill_step=None if kill is None else kill.step,
            kill_epoch=None if kill is None else kill.epoch,
        )
        return rehearse(self._command, plan, place, timeout_seconds=self._options.timeout_seconds)

    def checkpoints(self, name: str) -> Path:
        return self._workplace / name / "checkpoints"

    def case(self, name: str, kill: _Kill, whole: Sequence[Entry], noise: tuple[Finding, ...]) -> Case:
        """Kill a run, resume it, and compare it with the uninterrupted one."""
        killed = self.run(name, kill)
        try:
            resumed = self.run(f"{name}-resumed", resumes=name)
        except CkptfmtError as error:
            return Case(kill.title, failure=str(error))
        if resumed[0].step < killed[-1].step:
            raise CkptfmtError(
                f"killed {kill.title}: the next run did not resume, but began at step {resumed[0].step}; call "
                "resume(), and give the same train_url to each run of the command"
            )
        causes = causes_of(whole, resumed, noise)
        effects = effects_of(whole, resumed, noise, causes)
        ignored = {finding.name for finding in noise if finding.kind is Kind.COMPONENT}
        tensors = tuple(self._tensors(name, ignored))
        return Case(kill.title, telling(causes, changed=bool(effects or tensors)), effects, tensors)

    def _tensors(self, name: str, ignored: set[str]) -> Iterator[str]:
        """Yield what differs between the last checkpoints of the uninterrupted and the resumed run."""
        last = [find_latest(self.checkpoints(run)).file for run in ("uninterrupted", name)]
        if None in last:
            return
        report = diff_files(*(file.path for file in last if file is not None))
        for change in report.tensors:
            tensor = change.after or change.before
            if tensor is not None and tensor.component not in (*_OF_THE_RUN, *ignored):
                yield f"{tensor.component} {tensor.name}"
        for value in report.values:
            if value.component not in (*_OF_THE_RUN, *ignored):
                yield f"{value.component} {value.path}"


def _kills(whole: Sequence[Entry]) -> Iterator[_Kill]:
    """Yield where to kill: in the first epoch, at its end, and in the second one; or early and late."""
    steps = [entry for entry in whole if entry.moment is Moment.STEPPED]
    ends = [entry for entry in whole if entry.moment is Moment.ENDED_EPOCH]
    if not ends:
        for step in sorted({1, len(steps) // 2, len(steps) - 2} - {0, len(steps)}):
            yield _Kill(f"after step {steps[step - 1].step}", step=steps[step - 1].step)
        return
    for epoch in sorted({entry.epoch for entry in steps})[:2]:
        inside = [entry.step for entry in steps if entry.epoch == epoch]
        middle = inside[max(len(inside) // 2 - 1, 0)]
        if len(inside) > 1:
            yield _Kill(f"after step {middle}, in epoch {epoch}", step=middle)
        if epoch == 0 and len(ends) > 1:
            yield _Kill("at the end of epoch 0", epoch=1)
