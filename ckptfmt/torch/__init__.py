"""Checkpoints of PyTorch states, and the `Checkpointer` for the training loop."""

from ckptfmt.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401 - only to say clearly that it is missing
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "ckptfmt.torch") from error

from ckptfmt.torch.checkpointer import Checkpointer
from ckptfmt.torch.failures import (
    HeldError,
    RankError,
    ResumeError,
    SaveError,
    SupersededError,
    UndecidedError,
    UsageError,
)
from ckptfmt.torch.io import load, open, save
from ckptfmt.torch.live import RestoreReport, restore
from ckptfmt.torch.report import ComponentReport, ResumeReport, SkippedFile
from ckptfmt.torch.stateful import Stateful
from ckptfmt.torch.warming import WarmStartReport, warm_start

__all__ = [
    "Checkpointer",
    "ComponentReport",
    "HeldError",
    "RankError",
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
    "restore",
    "save",
    "warm_start",
]
