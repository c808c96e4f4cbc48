"""A rehearsal in the process of the program: records each step, saves where the plan says, and ends there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.rehearsal.things import Reach, state_digest, value_digest
from ckptfmt._core.training.rehearsal.frames import program_variables
from ckptfmt._core.training.rehearsal.journal import Done, Entry, Moment, append
from ckptfmt._core.training.rehearsal.plan import RehearsalPlan
from ckptfmt._core.training.stateful import Stateful

__all__ = ["Rehearsal"]

T = TypeVar("T")


class Rehearsal:
    """Records what a training loop does.

    Args:
        plan: What to do.
        components: The components by name.
        done: Returns how far the run is.
        save: Saves now, and waits until that is done.
    """

    def __init__(
        self,
        plan: RehearsalPlan,
        components: Mapping[str, Stateful],
        done: Callable[[], Done],
        save: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._components = components
        self._reach = Reach(components)
        self._done = done
        self._save = save
        self._is_finished = False

    def handed(self, batch: object = None) -> None:
        """Record that the loop gets a step or a batch."""
        self._note(Moment.HANDED, batch)

    def batches(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches of an epoch that the plan allows, and record each."""
        for batch in batches:
            self.handed(batch)
            yield batch
            if self._done().batches >= self._plan.epoch_batches:
                return

    def stepped(self) -> None:
        """Record that a step is done; save, die or end if the plan says so."""
        self._note(Moment.STEPPED)
        kill_step = self._plan.kill_step
        if kill_step is not None and self._done().step >= kill_step:
            self._die()
        if self._done().step >= self._plan.stop_step:
            self._end()

    def ended_epoch(self) -> None:
        """Record that an epoch is done; save and die if the plan says so."""
        self._note(Moment.ENDED_EPOCH)
        if self._done().epoch == self._plan.kill_epoch:
            self._die()

    def _note(self, moment: Moment, batch: Any = None) -> None:
        components = {name: state_digest(component) for name, component in self._components.items()}
        random = {name: value_digest(state) for name, state in rng.capture().items()}
        things = self._reach.things(program_variables())
        digest = "" if batch is None else value_digest(batch)
        append(self._plan.journal, Entry(moment, self._done(), digest, components, random, things))

    def _die(self) -> NoReturn:
        self._save()
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL cannot be survived")

    def _end(self) -> NoReturn:
        if self._is_finished:  # something caught the exit
            os._exit(0)
        self._is_finished = True
        self._save()
        self._note(Moment.FINISHED)
        raise SystemExit(0)
