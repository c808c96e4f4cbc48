"""Opening of the checkpoint that a run resumes from: every byte verified, as far as its format allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.format.index import ROOT, Metadata
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.runs.quarantine import forget_cached
from ckptfmt._core.runs.reference import CheckpointReference
from ckptfmt._core.storage.local.retries import Patience
from ckptfmt._core.torch import save_load as io
from ckptfmt._core.torch.restore.api import ComponentStates
from ckptfmt._core.torch.restore.file_states import FileStates
from ckptfmt.errors import ChangedError, FormatError, StorageError, error_for

__all__ = ["CheckpointOpener", "VerifiedCheckpoint"]

_EPOCH = "epoch"


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A checkpoint with every byte verified, as far as its format allows.

    Attributes:
        path: The file.
        metadata: Metadata in the file.
        identity: Identity (spec 12.1); None for a file of `torch.save`, which also has no run, no generator states and
            no position in the data.
        names: Names of its components.
        states: The requested states, by component; their data is read later.
        whole: The states of a file without components, read whole: from `torch.save`, or with a single tree.
    """

    path: str
    metadata: Metadata
    identity: str | None
    names: tuple[str, ...]
    states: ComponentStates | None = None
    whole: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trees(self) -> Mapping[str, Any]:
        """The states by component, with placeholders for data that is read later."""
        return self.whole if self.states is None else self.states.trees

    def rank_count(self, name: str) -> int:
        """See `ComponentStates.rank_count`."""
        return 1 if self.states is None else self.states.rank_count(name)


@dataclass(frozen=True)
class CheckpointOpener:
    """Opens checkpoints for one resume: see `training.resume.resume_point.Opener`.

    Attributes:
        takers: The live objects by name (see `ComponentStates`).
        stack: Keeps files open.
        inert: Names in pickles to keep as inert data (see `pth.reading.read_state`).
    """

    takers: Mapping[str, object]
    stack: ExitStack
    inert: Collection[str] = ()

    def open_verified(self, file: CheckpointReference, patience: Patience) -> VerifiedCheckpoint:
        """Return a verified checkpoint; one that seems damaged is read again, from the disk.

        Raises:
            CkptfmtError: The checkpoint cannot be read, is damaged, or was replaced by another one.
        """

        def load() -> VerifiedCheckpoint:
            if file.identity is None:
                return _load_pth(file.path, file.metadata, self.takers, self.inert)
            try:
                return _verified(file, self.takers, self.stack)
            except FormatError:
                forget_cached(file)
                return _verified(file, self.takers, self.stack)

        return patience(load, file.path)

    def open_chosen(self, file: CheckpointReference) -> VerifiedCheckpoint:
        """Return a checkpoint that another process has verified.

        Raises:
            CkptfmtError: The checkpoint cannot be read here, or differs from the one on rank 0.
        """
        if file.identity is None:
            return _load_pth(file.path, file.metadata, self.takers, self.inert)
        checkpoint = self.stack.enter_context(io.open(file.path))
        if checkpoint.identity != file.identity:
            raise StorageError(f"{file.path}: differs from the file on rank 0; use a directory shared by all ranks")
        return _read(checkpoint, self.takers)


def _load_pth(
    path: str, metadata: Metadata, takers: Mapping[str, object], inert: Collection[str]
) -> VerifiedCheckpoint:
    with open_tensors(path, inert=inert) as file:
        if (file.metadata.epoch, file.metadata.step) != (metadata.epoch, metadata.step):
            raise ChangedError(f"{path}: another file has taken its place meanwhile")
        states = FileStates(file)
        names = tuple(name for name in states.names if name != _EPOCH)
        whole = {name: states.component(name) for name in names if name in takers}
        file.finish()
    return VerifiedCheckpoint(path, metadata, None, names, whole=whole)


def _verified(file: CheckpointReference, takers: Mapping[str, object], stack: ExitStack) -> VerifiedCheckpoint:
    with ExitStack() as meanwhile:
        checkpoint = meanwhile.enter_context(io.open(file.path))
        if checkpoint.identity != file.identity:
            raise ChangedError(f"{file.path}: another file has taken its place meanwhile")
        problems = checkpoint.verify()
        if problems:
            raise error_for(problems, file.path)
        found = _read(checkpoint, takers)
        stack.push(meanwhile.pop_all())  # only usable files stay open
        return found


def _read(checkpoint: Checkpoint, takers: Mapping[str, object]) -> VerifiedCheckpoint:
    facts = (checkpoint.path, checkpoint.metadata, checkpoint.identity)
    if ROOT in checkpoint:
        tree = io.read_state(checkpoint)
        whole = tree if isinstance(tree, Mapping) else {}
        return VerifiedCheckpoint(*facts, tuple(whole), whole=whole)
    return VerifiedCheckpoint(*facts, tuple(checkpoint), ComponentStates(checkpoint, takers))
