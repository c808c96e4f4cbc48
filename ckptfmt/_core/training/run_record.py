"""Metadata of a run, written into each of its checkpoints, and the right to save the run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ckptfmt._core.container.planning import make_metadata
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.runs.judged_by import judged_as_user_data
from ckptfmt._core.runs.retention import Mode
from ckptfmt._core.storage.resolve import fixed_directory
from ckptfmt._core.training.claiming import RunClaim
from ckptfmt._core.training.lineage import Ancestor, lineage_as_user_data
from ckptfmt.errors import CkptfmtError

__all__ = ["RunRecord"]


class RunRecord:
    """Metadata of a run.

    Args:
        directory: Directory of its checkpoints.
        run_id: Id of the run; None if not known yet.

    Raises:
        UsageError: The directory is not a path.
        StorageError: No directory can have this name.

    Attributes:
        directory: Directory of its checkpoints, absolute and without links (see `fixed_directory`), or URL.
        id: Id of the run; None until it is known.
        claim: The right of this process to save the run.
        lineage: The file that the run started from, then the one that file's run started from, and so on.
        judged_by: Metric that its checkpoints are judged by, and its direction; None without one.
        unreadable: Checkpoints with bytes that the device cannot read, path -> error. Their content is unknown.
        protected: Paths of checkpoints that this process never removes.
    """

    def __init__(self, directory: str | os.PathLike[str], run_id: str | None) -> None:
        self.directory = fixed_directory(directory)
        self.id = run_id
        self.claim = RunClaim(self.directory)
        self.lineage: tuple[Ancestor, ...] = ()
        self.judged_by: tuple[str, Mode] | None = None
        self.unreadable: Mapping[str, CkptfmtError] = {}
        self.protected: frozenset[str] = frozenset()

    @property
    def parent(self) -> str | None:
        """Identity of the file that the run started from, 64 hex digits; None without one."""
        return self.lineage[0].identity if self.lineage else None

    def protect(self, unreadable: Mapping[str, CkptfmtError], there: Iterable[str]) -> None:
        """If some checkpoints are unreadable, record them, and protect all present ones from removal."""
        if unreadable:
            self.unreadable = dict(unreadable)
            self.protected = frozenset({*unreadable, *there})

    def metadata(self, step: int, epoch: int, metrics: Mapping[str, float]) -> Metadata:
        """Return the metadata of a new checkpoint.

        Args:
            step: Optimizer steps done.
            epoch: Number of epochs finished.
            metrics: Values to record.

        Raises:
            SupersededError: Another process has taken over the run.
            StorageError: The run is not claimed yet, and cannot be claimed now.
        """
        return make_metadata(
            {},
            step=step,
            epoch=epoch,
            metrics=metrics or None,
            run_id=self.id,
            generation=self.claim.renew(),
            parent=self.parent,
            user={**(lineage_as_user_data(self.lineage) or {}), **judged_as_user_data(self.judged_by)} or None,
        )
