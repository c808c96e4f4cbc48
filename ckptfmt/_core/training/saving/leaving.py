"""Exit on request once everything is saved, with the exit code that asks the launcher to restart the process."""

from __future__ import annotations

import logging
import signal
from typing import NoReturn

from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.ranks import Ranks
from ckptfmt._core.training.saving.run_saves import Gather, RunSaves

__all__ = ["LEAVE_EXIT_CODE", "leave"]

LEAVE_EXIT_CODE = 75
"""Exit code of a process that saved and left on request: EX_TEMPFAIL of sysexits.h, "try again later"."""


def leave(saves: RunSaves, step: int, gather: Gather, why: signal.Signals | None, ranks: Ranks) -> NoReturn:
    """Exit once the last save is durable. All ranks call it.

    Args:
        saves: The saves of the run.
        step: Optimizer steps done.
        gather: Gathers the live state.
        why: The signal that asked the process to leave; None for the deadline.
        ranks: The job.

    Raises:
        SystemExit: Always, with `LEAVE_EXIT_CODE`.
        CkptfmtError: The save failed, even after several tries.
    """
    saves.finish(step, gather, must_succeed=True)
    ranks.barrier()  # the exit of the first rank may end the others
    if ranks.world().rank == 0:
        reason = why.name if why is not None else "the deadline is near"
        saved = f"step {step} is saved in {saves.last.path}; " if saves.last is not None else ""
        notify(f"{reason}: {saved}exiting with exit code {LEAVE_EXIT_CODE}", logging.INFO)
    raise SystemExit(LEAVE_EXIT_CODE)
