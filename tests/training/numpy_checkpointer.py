"""A Checkpointer for NumPy, made of the training core: what one for another framework begins with."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ckptfmt._core.container.numpy_adapter import NUMPY_ADAPTERS
from ckptfmt._core.container.planning import plan_components
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.state.flattening import flatten_component
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt._core.storage.local.retries import Patience
from ckptfmt._core.training.loop.loop_state import LoopState
from ckptfmt._core.training.loop.progress import Progress
from ckptfmt._core.training.preemption import LEAVE_SIGNALS, LeaveSignals
from ckptfmt._core.training.ranks import Ranks, SingleProcess
from ckptfmt._core.training.resume.resume_point import find_resume_point, released_if_it_fails
from ckptfmt._core.training.run_record import RunRecord
from ckptfmt._core.training.saving.background_saver import wait_for_all
from ckptfmt._core.training.saving.leaving import leave
from ckptfmt._core.training.saving.outcomes import Outcomes
from ckptfmt._core.training.saving.run_saves import Place, Plan, RunSaves
from ckptfmt._core.training.saving.run_writer import SaveOptions
from ckptfmt._core.training.saving.save_schedule import Due, Schedule
from ckptfmt._core.training.saving.staging import HostStaging
from ckptfmt._core.training.saving.tidying import Tidying
from ckptfmt._core.training.stateful import Stateful
from ckptfmt.errors import error_for
from tests.training.numpy_loop import GlobalGenerator, Repetition, progress_of, progress_tree

T = TypeVar("T")


class Opener:
    """Reads whole states."""

    def open_verified(self, file: CheckpointReference, patience: Patience) -> Any:
        return patience(lambda: self.open_chosen(file), file.path)

    def open_chosen(self, file: CheckpointReference) -> Any:
        with Checkpoint.open(file.path, NUMPY_ADAPTERS) as checkpoint:
            problems = checkpoint.verify()
            if problems:
                raise error_for(problems, file.path)
            return checkpoint.load()


class Checkpointer:
    """Saves after every step, in the background; resumes in the middle of an epoch; leaves on a signal."""

    def __init__(self, directory: Path, components: Mapping[str, Stateful], keep_last: int) -> None:
        self._components = components
        self._run = RunRecord(str(directory), None)
        self._ranks = Ranks(SingleProcess())
        self._schedule = Schedule(1, None, None, None)
        self._signals = LeaveSignals(LEAVE_SIGNALS)
        options = SaveOptions(afterwards=Tidying(self._run, RetentionPolicy(keep_last=keep_last)))
        self._saves = RunSaves(
            self._run.claim, self._schedule, options, Outcomes("raise"), ranks=self._ranks, staging=HostStaging()
        )
        self._loop = LoopState(GlobalGenerator(), Repetition, self._ranks)

    @property
    def step_count(self) -> int:
        return self._loop.step

    def resume(self) -> None:
        wait_for_all()
        with released_if_it_fails(self._run, self._ranks):
            point = find_resume_point(self._run, "auto", Opener(), self._ranks)
        self._run.id, self._run.lineage = point.run_id, point.lineage
        if point.checkpoint is None:
            self._loop.begin(Progress(), None)
        else:
            for name, component in self._components.items():
                component.load_state_dict(point.checkpoint[name])
            self._loop.begin(progress_of(point.checkpoint["progress"]), point.checkpoint["rng"])
        self._saves.begin(None if point.file is None else point.file.path, self._loop.step)
        self._signals.install()
        self._schedule.begin(time.monotonic())

    def epochs(self, n: int) -> Iterator[int]:
        for epoch in self._loop.epochs(n):
            yield epoch
            self._loop.end_epoch()
            self._saves.save(self._loop.step, self._gather, {})
        self._end()

    def steps(self, n: int) -> Iterator[int]:
        for step in self._loop.steps(n):
            yield step
            self.step()
        self._end()

    def cycle(self, loader: Iterable[T]) -> Iterator[T]:
        return self._loop.cycle(loader)

    def _end(self) -> None:
        self._saves.finish(self._loop.step, self._gather)
        self._saves.close()
        self._run.claim.release()
        self._signals.remove()

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        return self._loop.batches(loader)

    def step(self) -> None:
        self._loop.count_step()
        place = Place(self._loop.step, self._loop.epoch)
        due = self._saves.stepped(place, leave=self._signals.received is not None)
        if due is not Due.NOTHING:
            self._saves.save(self._loop.step, self._gather, {})
        if due is Due.SAVE_AND_LEAVE:
            leave(self._saves, self._loop.step, self._gather, self._signals.received, self._ranks)

    def _gather(self) -> Plan:
        progress = self._loop.progress()
        trees = {name: component.state_dict() for name, component in self._components.items()}
        trees |= {"rng": GlobalGenerator().capture(), "progress": progress_tree(progress)}
        flat = [flatten_component(name, tree, NUMPY_ADAPTERS) for name, tree in trees.items()]
        return lambda metrics: plan_components(
            flat, metadata=self._run.metadata(progress.step, progress.epoch, metrics), text_metadata={}
        )
