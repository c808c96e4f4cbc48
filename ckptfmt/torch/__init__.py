"""Checkpoints of PyTorch states, and the `Checkpointer` for the training loop."""

from ckptfmt.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401 - only to say clearly that it is missing
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "ckptfmt.torch") from error

from ckptfmt._core.torch.checkpointer import Checkpointer
from ckptfmt._core.torch.loading import load
from ckptfmt._core.torch.loggers import tensorboard_options, wandb_options
from ckptfmt._core.torch.restore.api import RestoreReport, restore
from ckptfmt._core.torch.run.accumulation import Gradients
from ckptfmt._core.torch.save_load import open, save
from ckptfmt._core.torch.warm_start.plan import WarmStartReport, warm_start
from ckptfmt._core.training.lineage import Ancestor
from ckptfmt._core.training.loop.batches import Batches
from ckptfmt._core.training.loop.cycle import Cycle
from ckptfmt._core.training.report import ComponentReport, ResumeReport
from ckptfmt._core.training.resume.peek import Peek, peek
from ckptfmt._core.training.stateful import Stateful
from ckptfmt.errors import (
    HeldError,
    RankError,
    RestoreError,
    ResumeError,
    SaveError,
    SkippedFile,
    SupersededError,
    UndecidedError,
    UsageError,
)

__all__ = [
    "Ancestor",
    "Batches",
    "Checkpointer",
    "ComponentReport",
    "Cycle",
    "Gradients",
    "HeldError",
    "Peek",
    "RankError",
    "RestoreError",
    "RestoreReport",
    "ResumeError",
    "ResumeReport",
    "SaveError",
    "SkippedFile",
    "Stateful",
    "SupersededError",
    "UndecidedError",
    "UsageError",
    "WarmStartReport",
    "load",
    "open",
    "peek",
    "restore",
    "save",
    "tensorboard_options",
    "wandb_options",
    "warm_start",
]

for _function in (load, open, peek, restore, save, tensorboard_options, wandb_options, warm_start):
    _function.__module__ = __name__  # their public home. A class keeps its own, by which its source is found
del _function
