"""Writer of a run's checkpoints, on the one rank that writes: copies, writes in a thread, reports failures."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ckptfmt._core.container.planning import SavePlan
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.runs.scan import EXTENSION
from ckptfmt._core.storage import store_for
from ckptfmt._core.training.claiming import RunClaim
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.ranks import Ranks
from ckptfmt._core.training.saving.background_saver import FinishedSave, Saver, Written
from ckptfmt._core.training.saving.last_written import LastWritten
from ckptfmt._core.training.saving.outcomes import Outcomes, as_ckptfmt_error
from ckptfmt._core.training.saving.staging import Staging
from ckptfmt.errors import StorageError, SupersededError, UsageError

__all__ = ["RunWriter", "SaveOptions", "WhenBusy"]

WhenBusy = Literal["wait", "skip"]


@dataclass(frozen=True)
class SaveOptions:
    """How a run saves.

    Attributes:
        background: Whether to write from a copy of the state while training continues.
        when_busy: What to do if a save is due while another one is running.
        afterwards: Called with the path or URL of each new checkpoint, once it is durable, in the thread that wrote it.
            Returns what went wrong.
    """

    background: bool = True
    when_busy: WhenBusy = "wait"
    afterwards: Callable[[str], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        if self.when_busy not in ("wait", "skip"):
            raise UsageError(f"when_busy is {self.when_busy!r}; pass 'wait' or 'skip'")


class RunWriter:
    """Writes the checkpoints of a run, one at a time. Only `result` raises errors.

    Args:
        claim: The right to save the run.
        options: How to write.
        outcomes: Outcomes of the earlier saves.
        ranks: The job.
        staging: Copies the state.
    """

    def __init__(
        self, claim: RunClaim, options: SaveOptions, outcomes: Outcomes, ranks: Ranks, staging: Staging
    ) -> None:
        self._claim = claim
        self._options = options
        self._outcomes = outcomes
        self._ranks = ranks
        self._staging = staging
        self._saver = Saver()
        self._finished: FinishedSave | None = None
        self._last = LastWritten()

    @property
    def busy(self) -> bool:
        """Whether a save is running."""
        return self._saver.busy

    @property
    def finished(self) -> FinishedSave | None:
        """The finished save that `poll` has found; None after a call of `result`."""
        return self._finished

    def start(self, step: int, plan: Callable[[], SavePlan], complaints: Sequence[str] = ()) -> None:
        """Save a planned checkpoint: in the background from a copy, or synchronously.

        The result of the previous save must have been taken.

        Args:
            step: Optimizer steps of the state.
            plan: Plans the checkpoint from the live state.
            complaints: Problems of this save so far.
        """
        for complaint in complaints:
            notify(complaint)
        try:
            planned = plan()
            if self._options.background:
                planned = self._staging.copy(planned)
        except Exception as error:  # noqa: BLE001 - the state may be arbitrary code, and memory may be short
            self.report_failure(error, step)
            self._saver.give_up(step, error)
            return

        def write() -> Written:
            try:
                self._claim.prepare()
                # Each step has its own name, so no later save would remove the remains of a killed or failed one.
                store = store_for(self._claim.directory)
                with contextlib.suppress(StorageError):
                    store.clean()
                path = store.path(_name(planned.metadata, unique=not store.properties.exclusive_publication))
                held, same = self._claim.held, self._last.same
                report = write_plan(path, planned, replace=False, guard=held, instead=same)
                self._last.note(report)
            except Exception as error:
                self.report_failure(error, step)
                raise
            return self._tidied(Written(report, tuple(complaints)), step)

        # The other ranks need a message from time to time, so this thread must stay free.
        in_thread = self._options.background or self._ranks.world().size > 1
        (self._saver.start if in_thread else self._saver.run)(step, write)

    def poll(self, *, wait: bool = False) -> FinishedSave | None:
        """Return a finished save on the first call after its end; None otherwise.

        Args:
            wait: Wait for a running save.
        """
        finished = self._saver.take(wait=wait)
        if finished is not None:
            self._finished = finished
        return finished

    def result(self) -> Written:
        """Return the checkpoint of the last save. `poll` must have found its end.

        Raises:
            Exception: The save failed.
        """
        finished, self._finished = self._finished, None
        assert finished is not None, "no save has finished"
        if finished.error is not None:
            raise finished.error
        assert finished.written is not None, "a save without an error has a checkpoint"
        return finished.written

    def report_failure(self, error: Exception, step: int) -> None:
        """Report a failed save to the user."""
        notify(self._outcomes.describe_failure(error, step, time.monotonic()), logging.ERROR)

    def _tidied(self, written: Written, step: int) -> Written:
        """Call `afterwards` for a save. The checkpoint is durable whatever happens here."""
        target = written.report.path
        afterwards = self._options.afterwards
        try:
            complaints = tuple(afterwards(target)) if afterwards is not None else ()
        except SupersededError as error:
            self.report_failure(error, step)
            return Written(written.report, written.complaints, str(error))
        except Exception as error:  # noqa: BLE001 - no failure here makes the save fail
            complaints = (f"{target}: saved, but older checkpoints could not be removed: {as_ckptfmt_error(error)}",)
        for complaint in complaints:
            notify(complaint)
        return Written(written.report, (*written.complaints, *complaints))


def _name(metadata: Metadata, *, unique: bool) -> str:
    """Return the name of a checkpoint. It is for people: only the content decides (spec 14.5).

    Args:
        metadata: Metadata of the checkpoint.
        unique: Whether no other save may ever have the name, because the store could not tell.
    """
    # From the operating system: the run's own generators must not advance.
    save_id = f".{secrets.token_hex(4)}" if unique else ""
    return f"ckpt-{metadata.step or 0:08d}-e{metadata.epoch or 0:04d}{save_id}{EXTENSION}"
