"""A look at the checkpoint that a run would resume from, before its objects are built."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace

from ckptfmt._core.catalog import verified_all
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.storage.resolve import fixed_directory, is_directory
from ckptfmt._core.training.rehearsal.plan import current_plan
from ckptfmt._core.training.resume.selection import choose, new_patience, select, undecided_if_unknown
from ckptfmt.errors import ResumeError, UsageError

__all__ = ["Peek", "peek", "require_peeked"]


@dataclass(frozen=True)
class Peek:
    """Result of `peek`: the checkpoint that a run would resume from.

    Attributes:
        directory: Directory of the run, absolute and without symbolic links.
        path: The checkpoint; None if there is none, so that a run would start.
        identity: Its identity, 64 hex digits; None for a file of `torch.save`.
        run_id: Its run; None if it belongs to none.
        step: Optimizer steps done since the start of the run.
        epoch: Number of epochs finished.
    """

    directory: str
    path: str | None = None
    identity: str | None = None
    run_id: str | None = None
    step: int = 0
    epoch: int = 0


def peek(train_url: str | os.PathLike[str], *, run_id: str | None = None, inert: Collection[str] = ()) -> Peek:
    """Return the checkpoint that `Checkpointer.resume` would restore. Nothing is changed.

    For programs whose objects depend on how far the run is, such as parameter groups that are added in training:

    ```python
    found = ckptfmt.torch.peek(train_url)
    if found.epoch >= 5:  # added before the end of the fifth epoch
        optimizer.add_param_group({"params": backbone.parameters()})
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer})
    ckpt.resume(found)  # exactly this checkpoint
    ```

    Every byte of the checkpoint is verified, and verified again by `resume`.

    Args:
        train_url: Directory of the run.
        run_id: As for `Checkpointer`.
        inert: As for `Checkpointer.resume`.

    Raises:
        UndecidedError: A checkpoint that may be the newest cannot be judged.
        ResumeError: None of the checkpoints is usable.
        StorageError: The directory cannot be read.
    """
    rehearsal = current_plan()
    directory = fixed_directory(train_url if rehearsal is None else rehearsal.scratch)

    def use(file: CheckpointReference) -> CheckpointReference:
        checked = verified_all(file, inert=inert)
        if checked.error is not None:
            raise checked.error
        return checked

    with undecided_if_unknown(directory):
        if not is_directory(directory):
            return Peek(directory)
        patience = new_patience()
        # Not tidy: only a run that has claimed the directory may quarantine.
        selection = replace(select(directory, run_id, patience=patience, inert=inert), tidy=False)
        found = choose(selection, lambda file: patience(lambda: use(file), file.path), patience)
    if found is None:
        return Peek(directory)
    facts = found.file.metadata
    return Peek(directory, found.file.path, found.file.identity, found.file.run_id, facts.step or 0, facts.epoch or 0)


def require_peeked(peeked: Peek, directory: str, path: str | None, identity: str | None) -> None:
    """Check that a run resumes from the checkpoint that `peek` returned.

    Args:
        peeked: The result of `peek`.
        directory: Directory of the run.
        path: The checkpoint that the run would resume from; None if it would start.
        identity: The identity of that checkpoint.

    Raises:
        UsageError: The result is of another directory.
        ResumeError: It is another checkpoint.
    """
    if peeked.directory != directory:
        raise UsageError(f"resume() got the result of peek({peeked.directory!r}); pass that of peek({directory!r})")
    if (peeked.path is None, peeked.identity) != (path is None, identity) or (identity is None and peeked.path != path):
        raise ResumeError(
            f"{directory}: the newest checkpoint is {path}, but peek() returned {peeked.path}; another process saved "
            "or removed checkpoints meanwhile: start the program again"
        )
