"""Checkpoints of the loop that PyTorch's documentation shows, as candidates to resume from.

They are `.pth` or `.pt` files that say how many epochs are finished (`ckptfmt.epochs`), and nothing of a run or of
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptfmt.epochs import epochs_finished
from ckptfmt.errors import CkptfmtError
from ckptfmt.format.index import Metadata
from ckptfmt.runs import CheckpointFile, Stamp, children
from ckptfmt.torch.legacy import read_pth

__all__ = ["documented_checkpoint", "documented_checkpoints", "is_documented", "read_documented"]

_EXTENSIONS = (".pth", ".pt")
_EPOCH = "epoch"


def is_documented(path: str) -> bool:
    """Say whether a file is one of `torch.save` by its name."""
    return path.endswith(_EXTENSIONS)


def documented_checkpoints(directory: str) -> tuple[CheckpointFile, ...]:
    """Return the checkpoints of the documented loop in a directory, the newest first, then those that can't be read.

    Files of `torch.save` that hold something else are left out.

    Raises:
        StorageError: The directory cannot be listed.
    """
    paths = [str(path) for path in children(directory) if is_documented(path.name) and not path.is_dir()]
    found = [file for path in paths if (file := documented_checkpoint(path)) is not None]
    return tuple(sorted(found, key=lambda file: file.metadata.epoch or 0, reverse=True))


def documented_checkpoint(path: str) -> CheckpointFile | None:
    """Return what a file of `torch.save` is as a checkpoint; None if it holds something else."""
    stamp = Stamp.of(path)
    try:
        epochs = _epochs(read_pth(path))
    except CkptfmtError as error:
        return CheckpointFile(path, error=error, stamp=stamp)
    return None if epochs is None else CheckpointFile(path, Metadata(epoch=epochs), stamp=stamp)


def read_documented(path: str) -> dict[str, Any]:
    """Return the states in such a file by component.

    Raises:
        CkptfmtError: It cannot be read.
    """
    return {name: state for name, state in read_pth(path).items() if name != _EPOCH}


def _epochs(content: object) -> int | None:
    """Return the epochs finished of a checkpoint whose components have names."""
    named = isinstance(content, Mapping) and all(isinstance(name, str) for name in content)
    return epochs_finished(content) if named else None
