"""When a save is due, by clocks that the tests turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ckptfmt._core.training.saving.save_schedule import Due, Schedule, deadline_seconds
from ckptfmt.errors import UsageError

STEP = 2.0
"""Seconds of an ordinary step."""


class Run:
    """Steps of a run whose saves cost what the test says."""

    def __init__(self, schedule: Schedule, *, held: float = 0.0, writing: float = 0.0, slowed: float = 0.0) -> None:
        self.schedule = schedule
        self.held, self.writing, self.slowed = held, writing, slowed
        self.now = 1000.0
        self.written_at: float | None = None
        self.saves: list[int] = []
        schedule.begin(self.now)

    def train(self, steps: int) -> Run:
        for step in range(1, steps + 1):
            saving = self.written_at is not None
            self.now += STEP + (self.slowed if saving else 0.0)
            if self.written_at is not None and self.now >= self.written_at:
                self.schedule.written(self.writing)
                self.written_at = None
            if self.schedule.stepped(step, self.now, self.now, saving=saving) is not Due.NOTHING:
                self.now += self.held
                self.schedule.saved(self.now, self.held)
                self.saves.append(step)
                self.written_at = self.now + self.writing
        return self


def test_an_interval_in_steps() -> None:
    assert Run(Schedule(5, None, None, None)).train(17).saves == [5, 10, 15]


def test_an_interval_in_time_begins_anew_with_each_save() -> None:
    assert Run(Schedule(None, 7 * STEP, None, None), held=STEP / 2).train(30).saves == [7, 14, 21, 28]


def test_both_intervals_together() -> None:
    assert Run(Schedule(10, 4 * STEP, None, None)).train(20).saves == [4, 8, 10, 14, 18, 20]


def test_without_an_interval_nothing_is_due() -> None:
    assert Run(Schedule(None, None, None, None)).train(100).saves == []


@pytest.mark.parametrize("share", [0.01, 0.03, 0.2])
@pytest.mark.parametrize(
    ("held", "writing", "slowed"), [(1.0, 0.0, 0.0), (0.1, 9.0, 0.5), (0.0, 20.0, 1.0)], ids=["sync", "async", "slow"]
)
def test_a_budget_is_spent_and_not_exceeded(share: float, held: float, writing: float, slowed: float) -> None:
    steps = 5000
    run = Run(Schedule(None, None, share, None), held=held, writing=writing, slowed=slowed).train(steps)
    overhead = (run.now - 1000.0 - steps * STEP) / (run.now - 1000.0)
    assert share * 0.8 < overhead < share * 1.1
    assert run.saves[0] <= 3  # a run that is killed soon has something


def test_a_failed_save_is_tried_again_after_a_pause_that_grows() -> None:
    schedule = Schedule(None, 10_000.0, None, None)
    schedule.begin(0.0)
    tries: list[float] = []
    for second in range(20_000):
        if schedule.stepped(second, float(second), float(second), saving=False) is Due.SAVE:
            tries.append(second)
            schedule.saved(float(second), 0.0)
            schedule.written(0.0)
            if len(tries) < 12:
                schedule.failed(float(second))
            else:
                schedule.succeeded()
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert tries[0] == 10_000
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600]  # and then none is due for an interval
    schedule.saved(20_000.0, 0.0)
    schedule.failed(20_000.0)
    assert schedule.stepped(1, 20_004.9, 0.0, saving=False) is Due.NOTHING
    assert schedule.stepped(2, 20_005.0, 0.0, saving=False) is Due.SAVE


@pytest.mark.parametrize(
    "make", [lambda: Schedule(None, None, None, None), lambda: Schedule(7, None, None, None)], ids=["epochs", "steps"]
)
def test_it_is_tried_again_before_the_next_one_is_due(make: Callable[[], Schedule]) -> None:
    schedule = make()
    schedule.begin(0.0)
    schedule.saved(0.0, 0.0)
    schedule.failed(0.0)
    due = [step for step in range(1, 9) if schedule.stepped(step, float(step), 0.0, saving=False) is Due.SAVE]
    assert due[0] == 5


def test_saves_that_fail_at_once_do_not_hide_what_a_save_costs() -> None:
    schedule = Schedule(None, None, 0.5, None)
    schedule.begin(0.0)
    due = []
    for step in range(1, 40):
        if schedule.stepped(step, float(step), 0.0, saving=False) is Due.SAVE:
            due.append(step)
            schedule.saved(float(step), 0.1)
            schedule.failed(float(step))
    assert len(due) > 30  # they cost next to nothing


def test_time_that_is_not_of_steps_is_not_measured() -> None:
    schedule = Schedule(None, None, 0.5, None)
    schedule.begin(0.0)
    now = 0.0
    saves = 0
    for step in range(1, 101):
        now += STEP
        if step % 10 == 0:
            schedule.pause()
            now += 500.0  # an evaluation
        if schedule.stepped(step, now, now, saving=False) is Due.SAVE:
            saves += 1
            schedule.saved(now, STEP)
            schedule.written(0.0)
    assert saves > 40  # every other step or so: the evaluations did not make steps or saves look slow


def test_the_deadline_leaves_time_for_the_longest_save() -> None:
    deadline = 2000.0
    schedule = Schedule(50, None, None, deadline)
    run = Run(schedule, held=1.0, writing=100.0)
    step = 0
    while True:
        step += 1
        run.now += STEP
        due = schedule.stepped(step, run.now, run.now, saving=False)
        if due is Due.SAVE:
            schedule.saved(run.now, 1.0)
            schedule.written(100.0)
        if due is Due.SAVE_AND_LEAVE:
            break
    assert 200.0 < deadline - run.now < 260.0
    assert schedule.must_leave(run.now)
    assert not schedule.must_leave(run.now - 60.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schedule(0, None, None, None),
        lambda: Schedule(None, 0.0, None, None),
        lambda: Schedule(None, float("nan"), None, None),
        lambda: Schedule(None, None, 1.0, None),
        lambda: Schedule(None, None, 0.0, None),
        lambda: Schedule(10, None, 0.1, None),
        lambda: deadline_seconds(datetime(2030, 1, 1)),
        lambda: deadline_seconds(float("nan")),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_deadlines() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(hours=1)
    assert deadline_seconds(moment) == moment.timestamp()
    assert deadline_seconds(1234) == 1234.0
    assert deadline_seconds(None) is None
    assert deadline_seconds("slurm", {"SLURM_JOB_END_TIME": "1700000000"}) == 1_700_000_000.0
    assert deadline_seconds("slurm", {"SLURM_JOB_END_TIME": "soon"}) is None
    assert deadline_seconds("slurm", {}) is None
