"""Removing old checkpoints after each save."""

from __future__ import annotations

from ckptfmt._core.pruning import prune_run
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.runs.retention import RetentionPolicy
from ckptfmt._core.storage.resolve import is_gone
from ckptfmt._core.training.run_record import RunRecord

__all__ = ["Tidying"]


class Tidying:
    """Applies a retention policy to a run, from one save to the next.

    Args:
        run: The run.
        policy: What to keep.
    """

    def __init__(self, run: RunRecord, policy: RetentionPolicy) -> None:
        self._run = run
        self._policy = policy
        self._known: tuple[CheckpointReference, ...] = ()

    def __call__(self, written: str) -> tuple[str, ...]:
        """Remove the checkpoints that the policy does not keep now that this one is durable; return the problems."""
        if self._policy.keeps_everything or self._run.id is None:
            return ()
        report = prune_run(
            self._run.directory,
            self._run.id,
            self._policy,
            just_written=written,
            known=self._known,
            guard=self._run.claim.held,
            protected=dict.fromkeys(self._run.protected, "another checkpoint could not be read"),
            unreadable=self._run.unreadable,
        )
        self._known = report.known
        complaints = [f"{failure.path}: could not be removed: {failure.reason}" for failure in report.failed]
        if report.hindered is not None and is_gone(written):
            complaints.append(
                f"{written}: saved, but gone: it was removed, or its directory was removed or renamed; "
                "no older checkpoint was removed"
            )
        elif report.hindered is not None:
            complaints.append(f"no old checkpoint was removed after {written}: {report.hindered}")
        return tuple(complaints)
