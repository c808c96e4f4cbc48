"""The facts about a run that are written into each of its checkpoints, and the right to write them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ckptfmt._core.container.planning import make_metadata
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.storage.local.paths import fixed_directory
from ckptfmt._core.training.claiming import RunClaim
from ckptfmt._core.training.lineage import Ancestor, lineage_as_user_data
from ckptfmt.errors import CkptfmtError

__all__ = ["RunRecord"]


class RunRecord:
    """The facts about a run.

    Args:
        directory: Where its checkpoints are.
        run_id: Its id, if it is known.

    Raises:
        UsageError: The directory is no path.
        StorageError: No directory can have this name.

    Attributes:
        directory: Where its checkpoints are: absolute, and without links (see `fixed_directory`).
        id: Its id; None as long as it is not known.
        claim: The right of this process to save it.
        lineage: The file that it started from, then what that one's run started from, and so on.
        unreadable: Checkpoints of which the device does not give some bytes, by path, and why. They may be anything.
        protected: Paths of checkpoints that this process does not remove.
    """

    def __init__(self, directory: str | os.PathLike[str], run_id: str | None) -> None:
        self.directory = fixed_directory(directory)
        self.id = run_id
        self.claim = RunClaim(self.directory)
        self.lineage: tuple[Ancestor, ...] = ()
        self.unreadable: Mapping[str, CkptfmtError] = {}
        self.protected: frozenset[str] = frozenset()

    @property
    def parent(self) -> str | None:
        """Identity of the file that it started from, 64 hex digits; None if it started from none."""
        return self.lineage[0].identity if self.lineage else None

    def protect(self, unreadable: Mapping[str, CkptfmtError], there: Iterable[str]) -> None:
        """If there are checkpoints that cannot be read, note them, and let none of those that are there be removed."""
        if unreadable:
            self.unreadable = dict(unreadable)
            self.protected = frozenset({*unreadable, *there})

    def metadata(self, step: int, epoch: int, metrics: Mapping[str, float]) -> Metadata:
        """Return the facts for a new checkpoint.

        Args:
            step: Optimizer steps done.
            epoch: Epochs finished.
            metrics: Values to note.

        Raises:
            SupersededError: Another process has taken over the run.
            StorageError: The run could not be claimed so far, and cannot now.
        """
        return make_metadata(
            {},
            step=step,
            epoch=epoch,
            metrics=metrics or None,
            run_id=self.id,
            generation=self.claim.renew(),
            parent=self.parent,
            user=lineage_as_user_data(self.lineage),
        )
