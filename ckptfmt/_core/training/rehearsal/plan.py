"""What a process of a rehearsal has to do: how far to train, where to save, and when to die."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ckptfmt.errors import UsageError

__all__ = ["VARIABLE", "RehearsalPlan", "current_plan"]

VARIABLE = "CKPTFMT_DOCTOR"
"""Environment variable with the path of the plan. It is set in the processes of `ckptfmt doctor` only."""


@dataclass(frozen=True)
class RehearsalPlan:
    """Plan of one process.

    Attributes:
        scratch: Directory for the checkpoints, in place of that of the program.
        journal: File to which the process appends what it sees, one JSON object per line.
        stop_step: Step after which the process saves and exits.
        epoch_batches: Batches of each epoch; later ones are not taken.
        kill_step: Save once this step is done, then die by SIGKILL; None: do not die.
        kill_epoch: The same, after the end of this epoch.
    """

    scratch: str
    journal: str
    stop_step: int
    epoch_batches: int
    kill_step: int | None = None
    kill_epoch: int | None = None

    def write(self, path: Path) -> None:
        """Write the plan to a file."""
        path.write_text(json.dumps(asdict(self)))


def current_plan(environment: Mapping[str, str] = os.environ) -> RehearsalPlan | None:
    """Return the plan of this process; None if it does not take part in a rehearsal.

    Raises:
        UsageError: The plan cannot be read.
    """
    path = environment.get(VARIABLE)
    if not path:
        return None
    try:
        return RehearsalPlan(**json.loads(Path(path).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{VARIABLE}: cannot read the plan {path}: {error}; unset the variable to train") from None
