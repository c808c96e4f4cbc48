"""Leaving on request, when everything is saved: whoever started the process starts it again."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import NoReturn

from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.run.progress import Moment
from ckptfmt._core.torch.saving.saving import RunSaves
from ckptfmt._core.training.notices import notify

__all__ = ["LEAVE_EXIT_CODE", "leave"]

LEAVE_EXIT_CODE = 75
"""Exit code of a process that saved and left on request: EX_TEMPFAIL of sysexits.h, "try again later"."""


def leave(saves: RunSaves, step: int, moment: Callable[[], Moment], why: signal.Signals | None) -> NoReturn:
    """Leave once the last save is durable. To be called by all ranks.

    Args:
        saves: The saves of the run.
        step: Optimizer steps done.
        moment: Returns the place and the random states of this rank.
        why: The signal that asks to leave; None for the deadline.

    Raises:
        SystemExit: Always, with `LEAVE_EXIT_CODE`.
        CkptfmtError: The save failed, however often it was tried.
    """
    saves.finish(step, moment, must_succeed=True)
    ranks.barrier()  # the first rank that leaves may take the others with it
    if ranks.world().rank == 0:
        reason = why.name if why is not None else "the deadline is near"
        saved = f"step {step} is saved in {saves.last.path}; " if saves.last is not None else ""
        notify(f"{reason}: {saved}leaving with exit code {LEAVE_EXIT_CODE}", logging.INFO)
    raise SystemExit(LEAVE_EXIT_CODE)
